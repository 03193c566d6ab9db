"""What ZeMosaic's worker gives with every tile, as recorded."""

SETTINGS = {
    "stack_norm_method": "linear_fit",
    "stack_weight_method": "noise_variance",
    "stack_reject_algo": "winsorized_sigma_clip",
    "stack_kappa_low": 3.0,
    "stack_kappa_high": 3.0,
    "parsed_winsor_limits": (0.05, 0.05),
    "stack_final_combine": "mean",
    "poststack_equalize_rgb": False,
    "apply_radial_weight": False,
    "radial_feather_fraction": 0.8,
    "radial_shape_power": 2.0,
}
