"""Whether it is the fake provider that answers at an address."""

import http.client
import json
import urllib.request

_WAIT_S = 5.0


def is_fake(base_url: str | None) -> bool:
    """Asks `GET /fake/scenario` beside the address of a teacher; None is a provider's own and never the fake one."""
    if base_url is None:
        return False
    url = base_url.rstrip("/").removesuffix("/v1") + "/fake/scenario"
    try:
        with urllib.request.urlopen(url, timeout=_WAIT_S) as response:  # noqa: S310 - http or https, see connection_of
            found = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return isinstance(found, dict) and {"seed", "faults", "batches"} <= found.keys()
