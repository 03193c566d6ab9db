"""Style and script of the report's page; both stand in the page itself, which needs nothing else."""

from __future__ import annotations

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: a browser refuses any request that leaves the page."""

STYLE = """
:root{--bg:#0a0d13;--panel:#121722;--panel2:#171e2c;--line:#232c3e;--text:#dbe2ee;--dim:#8c99b0;--accent:#6ad0b8;
--done_gpu:#a893f5;--done_cpu:#5fa8e8;--done_cpu_after_gpu_failure:#eeb45c;--reused:#57c2a4;--failed:#f0707a;
--cancelled:#7d889c}
*{box-sizing:border-box}
body{margin:0;color:var(--text);
background:radial-gradient(1200px 500px at 70% -10%,#1a2440 0,transparent 70%) no-repeat,var(--bg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1320px;margin:0 auto;padding:36px 28px 80px}
h1{font-size:30px;font-weight:650;letter-spacing:-.02em;margin:0}
h2{font-size:18px;font-weight:600;margin:44px 0 14px}
p{margin:6px 0;color:var(--dim)}
header{display:flex;flex-wrap:wrap;gap:14px 20px;align-items:center}
.status{padding:5px 14px;border-radius:99px;font-weight:600;font-size:14px;background:#173a30;color:#7fe0bd}
.status.bad{background:#42202a;color:#ff9aa2}
.status.halted{background:#40341c;color:#f3c577}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:12px;margin-top:26px}
.fact{background:var(--panel);border:1px solid var(--line);border-radius:14px;padding:12px 16px}
.fact b{display:block;font-size:22px;white-space:nowrap;font-weight:600;letter-spacing:-.01em}
.fact span{color:var(--dim);font-size:13px}
.problems{border:1px solid #5a2a33;background:#1d1219;border-radius:14px;padding:6px 20px 14px;margin-top:26px}
.problems.mild{border-color:#5a4a26;background:#1c180f}
.problems h2{margin:12px 0 6px}
.problems ul{margin:6px 0;padding-left:20px}
.problems li{margin:4px 0;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:16px}
.chart{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:14px;padding:14px 14px 6px}
.chart figcaption{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline;font-size:13px;color:var(--dim);
padding:0 6px 8px}
.chart figcaption b{color:var(--text);font-size:14.5px;font-weight:600}
.chart em{font-style:normal}
.chart i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
.chart svg{display:block;width:100%;height:auto}
.chart line{stroke:#222b3d;stroke-width:1}
.chart text{fill:#7f8ca3;font-size:12px}
.chart .field{fill:transparent}
.chart .mark{fill:#fff;opacity:0;pointer-events:none}
#tip{position:fixed;z-index:9;pointer-events:none;background:#05070bf2;border:1px solid #33405a;border-radius:10px;
padding:8px 12px;font-size:13px;display:none;max-width:340px;box-shadow:0 8px 30px #000a;white-space:pre-line}
.tools{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-bottom:14px}
button,input,select{font:inherit;color:inherit;background:var(--panel);border:1px solid var(--line);border-radius:99px;
padding:5px 14px}
input{min-width:220px}
button{cursor:pointer}
button[aria-pressed=true]{background:#20304a;border-color:#4a6a9c}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:16px;overflow:hidden;min-width:0}
.tile[hidden]{display:none}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1px;background:#05070b}
.pair figure{margin:0;position:relative;background:#070a10;aspect-ratio:4/3;display:flex}
.pair img{width:100%;height:100%;object-fit:contain;image-rendering:auto}
.pair figcaption{position:absolute;left:8px;bottom:6px;font-size:11.5px;color:#e8eef8;background:#05070bb0;
padding:1px 8px;border-radius:99px}
.pair .none{grid-column:1/3;aspect-ratio:8/3;align-items:center;justify-content:center;color:#66728a;padding:0 20px;
text-align:center;font-size:12.5px;line-height:1.35;overflow:hidden}
.pair .none span{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:6;overflow:hidden;
overflow-wrap:anywhere}
.body{padding:12px 16px 14px}
.body h3{margin:0;font-size:16px;font-weight:600;display:flex;gap:10px;align-items:baseline}
.body h3 span{flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.badge{font-size:12px;font-weight:600;padding:2px 10px;border-radius:99px;color:#0a0d13;background:var(--c);
white-space:nowrap}
.numbers{display:grid;grid-template-columns:repeat(3,1fr);gap:6px;margin:10px 0 2px;font-size:13px;color:var(--dim)}
.numbers b{display:block;color:var(--text);font-size:15px;font-weight:600}
details{margin-top:8px;font-size:13px}
summary{cursor:pointer;color:var(--accent)}
details table{width:100%;border-collapse:collapse;margin:6px 0 10px}
td,th{text-align:right;padding:2px 0 2px 10px;border-bottom:1px solid #1c2434;font-weight:400;vertical-align:top}
th{color:var(--dim)}
td:first-child,th:first-child{text-align:left;padding-left:0;overflow-wrap:anywhere}
.reason{color:#ffb3b8;overflow-wrap:anywhere;margin:8px 0 0;font-size:13.5px}
.plain{width:100%;border-collapse:collapse;font-size:14px;background:var(--panel);border-radius:14px;overflow:hidden}
.plain td,.plain th{padding:6px 16px;text-align:left;overflow-wrap:anywhere}
.two details{margin-top:12px}
.two details .plain{margin-top:10px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:16px;align-items:start}
footer{margin-top:50px;color:var(--dim);font-size:13px}
@media(max-width:640px){.charts,.two{grid-template-columns:1fr}main{padding:20px 14px}}
"""

SCRIPT = """
(function(){
var charts=JSON.parse(document.getElementById("chart-data").textContent),labels=charts.labels;
var tip=document.getElementById("tip");
document.querySelectorAll(".chart").forEach(function(chart,number){
 var field=chart.querySelector(".field"),mark=chart.querySelector(".mark"),count=labels.length;
 field.addEventListener("mousemove",function(event){
  var box=field.getBoundingClientRect();
  var index=Math.min(count-1,Math.max(0,Math.floor((event.clientX-box.left)/box.width*count)));
  var step=field.width.baseVal.value/count;
  mark.setAttribute("x",field.x.baseVal.value+step*index);mark.style.opacity=.08;
  tip.textContent=labels[index]+"\\n"+charts.charts[number].map(function(series){
   return series[0]+": "+series[1][index]+" "+chart.dataset.unit}).join("\\n");
  tip.style.display="block";
  tip.style.left=Math.min(event.clientX+16,innerWidth-tip.offsetWidth-10)+"px";
  tip.style.top=Math.min(event.clientY+16,innerHeight-tip.offsetHeight-10)+"px"});
 field.addEventListener("mouseleave",function(){tip.style.display="none";mark.style.opacity=0})});
var tiles=Array.from(document.querySelectorAll(".tile")),grid=document.querySelector(".tiles");
var wanted="",words="",shown=document.getElementById("shown");
function filter(){var visible=0;tiles.forEach(function(tile){
 var is=(!wanted||tile.dataset.outcome===wanted)&&tile.dataset.words.indexOf(words)>=0;
 tile.hidden=!is;visible+=is});shown.textContent=visible+" of "+tiles.length}
document.querySelectorAll("button[data-outcome]").forEach(function(button,_,all){
 button.addEventListener("click",function(){wanted=button.dataset.outcome;
  all.forEach(function(one){one.setAttribute("aria-pressed",one===button)});filter()})});
document.getElementById("words").addEventListener("input",function(event){
 words=event.target.value.toLowerCase();filter()});
document.getElementById("order").addEventListener("change",function(event){
 var key=event.target.value,sign=key==="place"?1:-1;
 tiles.slice().sort(function(a,b){return sign*(a.dataset[key]-b.dataset[key])||a.dataset.place-b.dataset.place})
  .forEach(function(tile){grid.appendChild(tile)})});
filter();
document.documentElement.dataset.ready="yes";
})();
"""
