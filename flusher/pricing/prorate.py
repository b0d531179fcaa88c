"""Proration of usage prices that ask for it: a partial period has its share of free units and tiers."""

from dataclasses import replace
from typing import TypeVar

from flusher.pricing.graduated import Graduated
from flusher.pricing.graduated_percentage import GraduatedPercentage
from flusher.pricing.period import BillingPeriod
from flusher.pricing.plan import UsageModel, UsagePrice
from flusher.pricing.share import scaled
from flusher.pricing.stairstep import Stairstep
from flusher.pricing.tiers import RateTier, Tier
from flusher.pricing.volume import Volume

_AnyTier = TypeVar("_AnyTier", Tier, RateTier)


def prorated(price: UsagePrice, own: BillingPeriod) -> UsagePrice:
    """Return a price with the share of its free units and of its tiers' ends that a partial period has.

    Unit prices, rates, flat fees, free events and the sizes of packages stay whole. Minimum and maximum are left as
    they are: they are amounts, and whoever compares them takes their share.
    """
    return replace(price, free_units=scaled(price.free_units, own), model=_prorated_model(price.model, own))


def _prorated_model(model: UsageModel, own: BillingPeriod) -> UsageModel:
    match model:
        case Graduated(tiers):
            return Graduated(_prorated_tiers(tiers, own))
        case Volume(tiers):
            return Volume(_prorated_tiers(tiers, own))
        case Stairstep(tiers):
            return Stairstep(_prorated_tiers(tiers, own))
        case GraduatedPercentage(rates):
            return GraduatedPercentage(_prorated_tiers(rates, own))
        case _:
            return model


def _prorated_tiers(tiers: tuple[_AnyTier, ...], own: BillingPeriod) -> tuple[_AnyTier, ...]:
    return tuple(tier if tier.up_to is None else replace(tier, up_to=scaled(tier.up_to, own)) for tier in tiers)
