"""What a reply costs: usage times the prices of a dated file.

In: `prices.yaml` beside this module, overlaid with a file of the user's own. Out: `Prices`. A model that no file names has
no price; nothing is guessed. Prices are no part of a build's identity: they say what data cost, not what it is.
"""

import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from longalign_data import yamlfile
from longalign_data.errors import RecipeError
from longalign_data.records import Usage
from longalign_data.teachers.base import Raw
from longalign_data.yamlfile import Strict

BUILTIN = Path(__file__).parent / "prices.yaml"

_PER_TOKEN = 1e-6
_SNAPSHOT = re.compile(r"-\d{8}$")

Dollars = Annotated[float, Field(ge=0)]


class Tier(Strict):
    """Dollars per million tokens for prompts of at most `up_to` tokens."""

    input: Dollars
    output: Dollars
    up_to: Annotated[int, Field(gt=0)] | None = None


class ModelPrice(Strict):
    """One model. Multipliers that are not given are the provider's."""

    tiers: Annotated[list[Tier], Field(min_length=1)]
    cache_write: Dollars | None = None
    cache_read: Dollars | None = None
    batch: Dollars | None = None

    @model_validator(mode="after")
    def _rising(self) -> "ModelPrice":
        limits = [tier.up_to for tier in self.tiers]
        if limits[-1] is not None or None in limits[:-1]:
            raise ValueError("tiers: every tier but the last needs `up_to`, and the last must have none")
        known = [limit for limit in limits if limit is not None]
        if any(low >= high for low, high in itertools.pairwise(known)):
            raise ValueError(f"tiers: `up_to` must rise from one tier to the next; found {known}")
        return self


class ProviderPrices(Strict):
    """The models of one provider, with what its caches and batches multiply the input price by."""

    cache_write: Dollars = 1.0
    cache_read: Dollars = 1.0
    batch: Dollars = 1.0
    models: dict[str, ModelPrice] = {}


class Prices(Strict):
    """A price file. `dated` is the day on which its figures were read."""

    dated: datetime.date
    stale_after_days: Annotated[int, Field(gt=0)] = 60
    source: str = ""
    providers: dict[str, ProviderPrices]

    def age_warning(self, today: datetime.date) -> str | None:
        """What to say when the file is older than it may be on the day `today`, else None."""
        days = (today - self.dated).days
        if days <= self.stale_after_days:
            return None
        return (
            f"the prices are of {self.dated}, {days} days old; check them against the provider's page and give newer ones "
            "with --prices FILE"
        )

    def rate(self, provider: str, model: str) -> "Rate | None":
        """What a model costs, None where no file says. A dated snapshot (`...-20251001`) has the price of its model."""
        of_provider = self.providers.get(provider)
        if of_provider is None:
            return None
        price = of_provider.models.get(model) or of_provider.models.get(_SNAPSHOT.sub("", model))
        if price is None:
            return None
        return Rate(
            tiers=price.tiers,
            cache_write=of_provider.cache_write if price.cache_write is None else price.cache_write,
            cache_read=of_provider.cache_read if price.cache_read is None else price.cache_read,
            batch=of_provider.batch if price.batch is None else price.batch,
        )

    def require(self, provider: str, model: str) -> "Rate":
        """Like `rate`. Raises RecipeError for a model without a price, with the lines that give it one."""
        found = self.rate(provider, model)
        if found is not None:
            return found
        of_provider = self.providers.get(provider, ProviderPrices())
        known = ", ".join(sorted(of_provider.models))
        factors = "".join(
            f"{name}: {getattr(of_provider, name):g}, " for name in ("cache_write", "cache_read", "batch")
        )
        raise RecipeError(
            f"no price is known for the model {model!r} of provider {provider!r}{f' (known: {known})' if known else ''}. "
            "Write its dollars per million tokens into a file and give it with --prices FILE:\n\n"
            f"dated: {self.dated}   # the day on which you read them\n"
            f"providers:\n  {provider}:\n    models:\n"
            "      # The multipliers are of the input price (batch: of everything); 1 where nothing is added or taken off.\n"
            f"      {model}: {{{factors}tiers: [{{input: 0.00, output: 0.00}}]}}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What one model costs, with all multipliers filled in."""

    tiers: Sequence[Tier]
    cache_write: float
    cache_read: float
    batch: float

    def cost(self, usage: Usage, *, batch: bool = False) -> float:
        """Dollars for one request. The tier is that of the whole prompt, however much of it came from a cache; thinking is
        part of the output."""
        prompt = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
        tier = next(tier for tier in self.tiers if tier.up_to is None or prompt <= tier.up_to)
        given = (
            usage.input_tokens + self.cache_write * usage.cache_write_tokens + self.cache_read * usage.cache_read_tokens
        )
        dollars = (given * tier.input + usage.output_tokens * tier.output) * _PER_TOKEN
        return dollars * self.batch if batch else dollars


FREE = Rate(tiers=[Tier(input=0.0, output=0.0)], cache_write=1.0, cache_read=1.0, batch=1.0)


def load_prices(override: Path | None = None) -> Prices:
    """The prices of the package, overlaid with those of `override`: providers and models that it names replace the
    package's, and its date counts. Raises RecipeError naming file, line and key."""
    base = yamlfile.load(BUILTIN, Prices)
    if override is None:
        return base
    own = yamlfile.load(override, Prices)
    return own.model_copy(update={"providers": _overlaid(base.providers, own.providers)})


def _overlaid(base: Mapping[str, ProviderPrices], own: Mapping[str, ProviderPrices]) -> dict[str, ProviderPrices]:
    merged = dict(base)
    for name, prices in own.items():
        below = base.get(name, ProviderPrices())
        said = {key: getattr(prices, key) for key in prices.model_fields_set - {"models"}}
        merged[name] = below.model_copy(update={**said, "models": {**below.models, **prices.models}})
    return merged


def is_batch(raw: Raw, *, was_in_batch: bool) -> bool:
    """Whether a reply is billed as part of a batch: what its usage says, and where it says nothing, whether it came out of
    one of our batches."""
    usage = raw.get("usage")
    tier = usage.get("service_tier") if isinstance(usage, dict) else None
    return tier == "batch" if tier is not None else was_in_batch
