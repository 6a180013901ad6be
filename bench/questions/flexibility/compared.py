"""How log p(x) and the gaps below it differ from the reference's; all verdicts hold together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.questions.exact_likelihood import tolerance_of
from bench.questions.flexibility import COMPARED
from bench.report.claims import Claim, claims
from bench.report.estimators import estimates, over_seeds
from bench.report.results import Results
from bench.report.rows import select
from bench.report.style import ordered
from bench.statistics import Estimate, summary


def changes(results: Results) -> list[Claim]:
    """A claim each (variant, quantity of `COMPARED`); [] where flexibility was not measured."""
    return claims(differences(results), tolerance=tolerance_of(results))


def differences(results: Results) -> dict[tuple[str, str], Estimate]:
    """Of log p(x) and the gaps to the reference's, paired by seed; of the interval over seeds and
    that over each seed's images the wider, since few seeds may agree by chance."""
    names = {f"{name}_difference": name for name in COMPARED}
    its = select(results.of("flexibility"), metric=[*names], reference=REFERENCE)
    its = its.assign(metric=its.metric.map(names))
    elbo = results.of("headline", "elbo_difference", reference=REFERENCE)
    its, line = _of_all_images(its, elbo), ["variant", "metric"]
    several = its.groupby(line).seed.transform("nunique") > 1  # of one seed no interval holds
    found = summary(its[~several], line) | estimates(over_seeds(its[several]), *line)
    lines = [(variant, name) for variant in ordered(its.variant) for name in COMPARED]
    return {line: found[line] for line in lines if line in found}


def _of_all_images(its: pd.DataFrame, elbo: pd.DataFrame) -> pd.DataFrame:
    """Differences of log p(x) as those of ELBO over the whole test set plus those of the gap, which
    few images tell well, while log p(x) itself differs far more from image to image."""
    keys = ["variant", "seed"]
    gap, over_all = (f.set_index(keys) for f in (select(its, metric="inference_gap"), elbo))
    whole = pd.DataFrame(
        {
            "value": gap.value + over_all.value,
            "standard_error": np.hypot(gap.standard_error, over_all.standard_error),
        }
    ).dropna(subset="value")
    places = pd.MultiIndex.from_frame(its[keys])
    better = (its.metric == "log_likelihood").to_numpy() & places.isin(whole.index)
    whole = whole.reindex(places).set_index(its.index)
    return its.assign(**{name: its[name].where(~better, whole[name]) for name in whole})
