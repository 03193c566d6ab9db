// Figures enlarge: a click or Enter shows one in the whole window, a second one at its own size; Esc closes it.
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  document.querySelectorAll("article img").forEach((image) => {
    const button = document.createElement("button");
    button.className = "enlarge";
    button.title = "enlarge";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => {
      const large = image.cloneNode();
      large.addEventListener("click", () => large.classList.toggle("whole"));
      dialog.setAttribute("aria-label", image.alt);
      dialog.replaceChildren(close, large);
      dialog.showModal();
    });
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
});
