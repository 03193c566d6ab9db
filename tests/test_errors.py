"""What `stack` refuses before any work, and what the message says; the tree of errors."""

import numpy as np
import pytest

import zemosaic_stack_core as core
from zemosaic_stack_core import InvalidInputError, StackOptions, stack


def frames_of(n=3, shape=(4, 5)):
    return [np.full(shape, float(k), dtype=np.float32) for k in range(n)]


def refused(*args, error=InvalidInputError, **kwargs):
    """Stack, and give the message of the error; no row was reported as done."""
    calls = []
    with pytest.raises(error) as raised:
        stack(*args, progress=lambda done, total: calls.append(done), workers=1, **kwargs)
    assert not calls
    message = str(raised.value)
    assert "\n" not in message
    assert "expected" in message
    return message


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (core.InvalidInputError, ValueError),
        (core.FrameReadError, OSError),
        (core.BackendUnavailableError, RuntimeError),
        (core.GPUStackingError, RuntimeError),
        (core.OutOfMemoryError, MemoryError),
    ],
)
def test_tree(error, builtin):
    assert issubclass(error, core.ZemosaicError)
    assert issubclass(error, builtin)


def test_no_frames():
    assert "no frames" in refused([])


def test_shapes_that_differ():
    message = refused([*frames_of(2), np.zeros((4, 6), dtype=np.float32)])
    assert "frame 2" in message
    assert "frame 0" in message
    assert "6" in message
    assert "5" in message


def test_color_among_mono():
    assert "frame 1" in refused([np.zeros((4, 5), np.float32), np.zeros((4, 5, 3), np.float32)])


@pytest.mark.parametrize("shape", [(5,), (), (2, 3, 4, 5), (0, 5), (4, 0), (4, 5, 0)])
def test_a_shape_that_is_no_frame(shape):
    message = refused([np.zeros(shape, dtype=np.float32)])
    assert "frame 0" in message
    assert str(shape) in message


@pytest.mark.parametrize("dtype", [np.complex64, "U3", object])
def test_a_type_that_is_no_number(dtype):
    message = refused([*frames_of(1), np.zeros((4, 5)).astype(dtype)])
    assert "frame 1" in message


@pytest.mark.parametrize("item", [None, 3.0, [[1.0, 2.0]], {"a": 1}])
def test_an_item_that_is_no_frame(item):
    message = refused([*frames_of(1), item])
    assert "frame 1" in message
    assert type(item).__name__ in message


def test_a_path_alone_is_not_a_sequence_of_frames(tmp_path):
    assert "sequence of frames" in refused(str(tmp_path / "a.fits"))


@pytest.mark.parametrize("name", ["gone.fits", "gone.npy"])
def test_a_file_that_is_not_there(tmp_path, name):
    message = refused([*frames_of(1), tmp_path / name], error=core.FrameReadError)
    assert name in message


@pytest.mark.parametrize("name", ["text.fits", "text.npy"])
def test_a_file_that_is_no_frame(tmp_path, name):
    path = tmp_path / name
    path.write_text("not an image\n")
    assert name in refused([path], error=core.FrameReadError)


def test_an_unknown_file_type(tmp_path):
    path = tmp_path / "image.xyz"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(core.ZemosaicError, match=r"image\.xyz"):
        stack([path], workers=1)


def test_options_of_another_type():
    assert "expected StackOptions" in refused(frames_of(), options={"rejection": "none"})


def test_an_unknown_map():
    message = refused(frames_of(), maps=("coverage", "confidence"))
    assert "confidence" in message
    for name in ("coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
        assert name in message


def test_an_unknown_backend():
    message = refused(frames_of(), backend="opencl")
    assert "opencl" in message
    assert "numpy" in message
    assert "cupy" in message


@pytest.mark.parametrize("rows", [0, -1, 2.5, "7"])
def test_rows_per_chunk(rows):
    assert repr(rows) in refused(frames_of(), rows_per_chunk=rows)


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers(workers):
    with pytest.raises(InvalidInputError, match=rf"workers is {workers}; expected"):
        stack(frames_of(), workers=workers)


@pytest.mark.parametrize("limit", [0, -1])
def test_memory_limit(limit):
    with pytest.raises(InvalidInputError, match=r"memory_limit is .*expected"):
        stack(frames_of(), memory_limit=limit, workers=1)


def test_memory_limit_below_one_pixel():
    with pytest.raises(core.OutOfMemoryError):
        stack(frames_of(50), memory_limit=100, workers=1)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, np.nan, 1.0], "finite"),
        ([1.0, np.inf, 1.0], "finite"),
        ([1.0, 1e39, 1.0], "float32"),
        ([1.0, -0.5, 1.0], "-0.5"),
        ([0.0, 0.0, 0.0], "zero"),
        ([0.0, 1e-60, 0.0], "positive weight"),  # zero in float32
        ([1.0, 1.0], "(2,)"),
        ([1.0, 1.0, 1.0, 1.0], "(4,)"),
        (np.ones((3, 4, 6)), "(3, 4, 6)"),
        (np.full((3, 4, 5), -1.0), "-1"),
        (np.zeros((3, 4, 5)), "zero"),
        (np.where(np.arange(60).reshape(3, 4, 5) == 7, np.nan, 1.0), "finite"),
        (["a", "b", "c"], "weights"),
        ("noise", "weights"),
    ],
    ids=[
        "nan",
        "inf",
        "too large",
        "negative",
        "all zero",
        "all too small",
        "too few",
        "too many",
        "other shape",
        "negative samples",
        "zero samples",
        "nan samples",
        "words",
        "a word",
    ],
)
def test_weights_that_are_refused(weights, words):
    message = refused(frames_of(), weights=weights)
    assert "weights" in message or "weight" in message
    assert words in message


@pytest.mark.parametrize("combine", ["median", "min", "max"])
def test_weights_with_a_combination_that_has_none(combine):
    message = refused(frames_of(), options=StackOptions(combine=combine), weights=[1.0, 2.0, 3.0])
    assert combine in message
    assert "mean" in message


def test_weights_of_one_channel_are_zero():
    """Every channel needs a frame of positive weight."""
    message = refused(frames_of(2, (4, 5, 3)), weights=[[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert "weight" in message


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([None, None], "2 masks for 3 frames"),
        ([None, np.zeros((4, 6), dtype=bool), None], "(4, 6)"),
        ([None, np.zeros((4, 5)), None], "float64"),
        ([None, np.zeros((4, 5), dtype=np.uint8), None], "uint8"),
        ([None, 3, None], "int"),
    ],
    ids=["too few", "other shape", "float", "integer", "number"],
)
def test_masks_that_are_refused(masks, words):
    message = refused(frames_of(), masks=masks)
    assert "mask" in message
    assert words in message or words.replace("(4, 6)", "4 x 6") in message


@pytest.mark.parametrize("variances", [np.full((3, 4, 5), -1.0), np.ones((3, 4, 6))], ids=["negative", "other shape"])
def test_variances_that_are_refused(variances):
    assert "variances" in refused(frames_of(), variances=variances)


def test_a_reference_that_is_not_there():
    message = refused(frames_of(), options=StackOptions(normalization="additive", reference=3))
    assert "reference" in message
    assert "3" in message


def test_a_frame_that_can_t_be_normalized_is_an_error_where_asked():
    """The second frame has no spread, and so no scale."""
    rng = np.random.default_rng(0)
    frames = [rng.normal(100.0, 5.0, (16, 16)).astype(np.float32) for _ in range(3)]
    frames[1][:] = 7.0
    options = StackOptions(normalization="additive_scaling", reference=0, on_unnormalizable="error")
    assert "frame 1" in refused(frames, options=options)


def test_frames_without_any_sample_are_no_error():
    result = stack([np.full((2, 3), np.nan, dtype=np.float32)] * 3, workers=1)
    assert np.isnan(result.image).all()
    assert not result.coverage.any()


def test_an_exception_of_progress_passes_through():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stack(frames_of(), progress=stop, workers=1)
