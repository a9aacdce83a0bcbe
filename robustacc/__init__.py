"""Is robustness at odds with accuracy? Attacks, measures and training, for any model and any labelled set of images.

    import robustacc as ra
    data = ra.load("digits")
    print(ra.benchmark(model, data.test.images, data.test.labels, eps=8/255))

Each name below is loaded when it is first used. Shares are in [0, 1], radii in pixel units: 8/255 is eight grey levels.
"""
__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

from ._docstrings import describe_imports

if TYPE_CHECKING:
    from .attacks import PGD as PGD, MultiTargeted as MultiTargeted, Threat as Threat
    from .auditing import audit as audit
    from .benchmarking import benchmark as benchmark
    from .conflicts import optimal_robust_loss as optimal_robust_loss
    from .data import Data as Data, load as load
    from .evaluation import accuracy as accuracy, robust_accuracy as robust_accuracy
    from .fitting import fit as fit
    from .lipschitz import local_lipschitz as local_lipschitz
    from .masking import masking_report as masking_report
    from .methods import AT as AT, GR as GR, LLR as LLR, RST as RST, TRADES as TRADES, Natural as Natural
    from .networks import build as build
    from .random_search import Square as Square
    from .recipes import Recipe as Recipe
    from .records import load_trained as load_trained
    from .search import nearest_other as nearest_other, pairs_within as pairs_within
    from .strong_attacks import APGD as APGD, FAB as FAB, APGDTargeted as APGDTargeted, autoattack as autoattack

_HOMES = {
    "data": ("load", "Data"),
    "networks": ("build",),
    "evaluation": ("accuracy", "robust_accuracy"),
    "benchmarking": ("benchmark",),
    "attacks": ("Threat", "PGD", "MultiTargeted"),
    "strong_attacks": ("APGD", "APGDTargeted", "FAB", "autoattack"),
    "random_search": ("Square",),
    "masking": ("masking_report",),
    "lipschitz": ("local_lipschitz",),
    "auditing": ("audit",),
    "search": ("nearest_other", "pairs_within"),
    "conflicts": ("optimal_robust_loss",),
    "methods": ("Natural", "GR", "LLR", "AT", "RST", "TRADES"),
    "recipes": ("Recipe",),
    "records": ("load_trained",),
    "fitting": ("fit",),
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _PLACES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]: return sorted({*globals(), *_PLACES} - {"TYPE_CHECKING", "import_module", "describe_imports"})


describe_imports(__name__)
