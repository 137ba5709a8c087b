"""Who asks for a change: the account that a call's token names (service.proto creator, last_modifier); nothing is verified here."""

import base64
import json

from localcloud.wire import Context

NOBODY = "developer@localhost"  # calls without a token, or with one that names nobody


def author(ctx: Context) -> str:
    """The email address in the token of a call: `email` of an identity token, `iss` or `sub` of a service account's own token."""
    metadata = dict(ctx.invocation_metadata() or ())
    kind, _, token = str(metadata.get("authorization", "")).partition(" ")
    if kind.lower() != "bearer":
        return NOBODY
    claims = _claims(token)
    named = (claims.get(name) for name in ("email", "iss", "sub"))
    return next((each for each in named if isinstance(each, str) and "@" in each and len(each) <= 254), NOBODY)


def _claims(token: str) -> dict[str, object]:
    """What a JSON web token says; nothing, if it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
