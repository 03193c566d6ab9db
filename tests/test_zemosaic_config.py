"""ZeMosaic's settings mean what they mean there, and what can't be had is said."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.zemosaic.config import (
    read_zemosaic_config,
    translate_config,
    translate_stacking_params,
)

ZEMOSAIC_DEFAULTS = {
    "stacking_normalize_method": "linear_fit",
    "stacking_weighting_method": "noise_variance",
    "stacking_rejection_algorithm": "winsorized_sigma_clip",
    "stacking_kappa_low": 3.0,
    "stacking_kappa_high": 2.5,
    "stacking_winsor_limits": "0.05,0.1",
    "stacking_final_combine_method": "mean",
    "wsc_impl": "pixinsight",
    "apply_radial_weight": False,
    "radial_feather_fraction": 0.8,
    "radial_shape_power": 2.0,
    "use_gpu_phase5": True,
    "parallel_max_cpu_workers": 2,
}


def test_the_defaults_of_the_program():
    settings = translate_config(ZEMOSAIC_DEFAULTS)
    assert settings.options == StackOptions(
        normalization="linear_fit",
        weighting="noise_variance",
        rejection="winsorized_sigma_clip",
        kappa_high=2.5,
        winsor_limits=(0.05, 0.1),
    )
    assert settings.use_gpu
    assert settings.parallel == {"parallel_max_cpu_workers": 2, "use_gpu_phase5": True}
    assert settings.notes == settings.ignored == ()


def test_an_empty_configuration_gives_the_librarys_defaults():
    assert translate_config({}).options == StackOptions()


def test_zemosaics_other_name_of_a_weight():
    assert translate_stacking_params({"stack_weight_method": "noise_plus_fwhm"}).options.weighting == "noise_fwhm"


@pytest.mark.parametrize("value", [True, 1, "true", "On"])
def test_the_configuration_has_the_last_word_about_colors(value):
    assert translate_stacking_params({"poststack_equalize_rgb": value}).equalize_rgb
    off = translate_stacking_params({"poststack_equalize_rgb": value}, {"poststack_equalize_rgb": "false"})
    assert not off.equalize_rgb
    assert off.ignored == ()


def test_without_a_rule_the_worker_rejects_nothing():
    assert translate_stacking_params(None).options == StackOptions(rejection="none", reference=0)


def test_the_workers_names():
    settings = translate_stacking_params(
        {
            "stack_norm_method": "sky_mean",
            "stack_weight_method": "unity",
            "stack_reject_algo": "Kappa-Sigma",
            "stack_kappa_low": "2,5",
            "stack_kappa_high": 4,
            "parsed_winsor_limits": [0.1, 0.2],
            "stack_final_combine": "MEAN",
            "apply_radial_weight": True,
            "radial_feather_fraction": 0.5,
            "radial_shape_power": 3,
            "something_else": 1,
        },
        SimpleNamespace(stack_use_gpu=False, use_gpu_phase5=True),
    )
    assert settings.options == StackOptions(
        normalization="sky_mean",
        rejection="kappa_sigma",
        kappa_low=2.5,
        kappa_high=4.0,
        winsor_limits=(0.1, 0.2),
        radial_feather_fraction=0.5,
        radial_shape_power=3.0,
        reference=0,  # where ZeMosaic puts it
    )
    assert not settings.use_gpu
    assert settings.ignored == ("something_else",)


@pytest.mark.parametrize(
    ("spelling", "rule"),
    [
        ("none", "none"),
        ("", "none"),
        ("kappa", "kappa_sigma"),
        ("sigma_clip", "kappa_sigma"),
        ("winsor", "winsorized_sigma_clip"),
        ("winsorized", "winsorized_sigma_clip"),
        ("linear_fit_clip", "linear_fit_clip"),
        ("gesd", "gesd"),
    ],
)
def test_other_spellings_of_a_rule(spelling, rule):
    assert translate_config({"stacking_rejection_algorithm": spelling}).options.rejection == rule


def test_the_older_winsorized_clip():
    config = {"stacking_rejection_algorithm": "winsorized_sigma_clip", "wsc_impl": "legacy_quantile"}
    assert translate_config(config).options.rejection == "winsorized_quantile"
    assert translate_stacking_params({"stack_reject_algo": "winsor"}, config).options.rejection == (
        "winsorized_quantile"
    )


def test_weights_with_a_median_are_left_out_and_said():
    settings = translate_config(
        {**ZEMOSAIC_DEFAULTS, "stacking_final_combine_method": "median", "apply_radial_weight": True}
    )
    assert settings.options.weighting == "none"
    assert settings.options.combine == "median"
    assert settings.options.radial_feather_fraction is None
    assert [note.partition(" is not used")[0] for note in settings.notes] == [
        "stacking_weighting_method 'noise_variance'",
        "apply_radial_weight",
    ]


def test_unknown_settings_are_named():
    assert translate_config({"language": "en", "astap_path": ""}).ignored == ("astap_path", "language")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stacking_rejection_algorithm": "kapa"}, r"rejection_algorithm is 'kapa'; expected one of: none, .*gesd"),
        ({"stacking_normalize_method": 3}, r"stacking_normalize_method is 3; expected one of"),
        ({"stacking_weighting_method": "snr"}, r"stacking_weighting_method is 'snr'; expected one of"),
        ({"stacking_final_combine_method": "product"}, r"stacking_final_combine_method is 'product'; expected one of"),
        ({"stacking_kappa_low": "three"}, r"stacking_kappa_low is 'three'; expected a number"),
        ({"stacking_kappa_low": -1}, r"kappa_low is -1"),
        ({"stacking_winsor_limits": "0.05"}, r"stacking_winsor_limits is '0.05'; expected two numbers"),
        ({"stacking_winsor_limits": 7}, r"stacking_winsor_limits is 7; expected two numbers"),
        (
            {"apply_radial_weight": True, "radial_shape_power": 0},
            r"radial_shape_power is 0.0; expected a finite",
        ),
    ],
)
def test_what_can_not_be_read_is_said(config, message):
    with pytest.raises(InvalidInputError, match=message):
        translate_config(config)


def test_read_the_file(tmp_path):
    path = tmp_path / "zemosaic_config.json"
    path.write_text("\ufeff" + json.dumps(ZEMOSAIC_DEFAULTS), encoding="utf-8")
    assert read_zemosaic_config(path) == ZEMOSAIC_DEFAULTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; expected a readable"),
        ("{", "not a JSON file"),
        ("[1]", "found a JSON list; expected an object"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, message):
    path = tmp_path / "zemosaic_config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=f"zemosaic_config.json: {message}"):
        read_zemosaic_config(path)
