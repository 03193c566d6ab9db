"""Critical values of the generalised extreme studentised deviate test, for each number of samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.kernel import CriticalValues
from zemosaic_stack_core.options import StackOptions

# The table has a row for every number of samples; with more frames than this it would outgrow the cube.
MOST_FRAMES = 2000


def gesd_critical_values(frames: int, options: StackOptions) -> CriticalValues:
    """Tabulate ``lambda_i`` for every number of samples up to `frames`.

    Shape ((frames + 1) * (most + 1),), float64, with ``most = floor(outlier_fraction * frames)``. The value for the
    ``i``-th outlier (from 1) among ``n`` samples stands at ``n * (most + 1) + i``, infinity where no test can be made.

    Notes
    -----
    ``lambda_i = (n - i) t / sqrt((n - i - 1 + t^2)(n - i + 1))`` with ``t`` the quantile of Student's distribution
    with ``n - i - 1`` degrees of freedom at ``1 - alpha/(2(n - i + 1))``.

    References
    ----------
    Rosner, B. (1983), Percentage points for a generalized ESD many-outlier procedure, Technometrics 25, 165.
    """
    if frames > MOST_FRAMES:
        raise InvalidInputError(
            f"rejection 'gesd' with {frames} frames; "
            f"expected at most {MOST_FRAMES}: kappa_sigma does the same with so many"
        )
    from scipy.special import stdtrit

    most = int(options.outlier_fraction * frames)
    n = np.arange(frames + 1, dtype=np.float64)[:, None]
    i = np.arange(most + 1, dtype=np.float64)[None, :]
    freedom = n - i - 1.0
    is_possible = (freedom >= 1.0) & (i >= 1.0)
    safe = np.where(is_possible, freedom, 1.0)
    remaining = np.where(is_possible, n - i + 1.0, 3.0)
    t = stdtrit(safe, 1.0 - options.alpha / (2.0 * remaining))
    values = (remaining - 1.0) * t / np.sqrt((safe + t * t) * remaining)
    table: npt.NDArray[np.float64] = np.where(is_possible, values, np.inf)
    return CriticalValues(table.reshape(-1), most)
