"""What the plan shows of a revision's settings."""

from google.cloud import run_v2

from relais.clients.template import spec_of


def probed(token: str) -> str:
    header = run_v2.HTTPHeader(name="Authorization", value=token)
    probe = run_v2.Probe(http_get=run_v2.HTTPGetAction(path="/ready", http_headers=[header]))
    return spec_of(run_v2.RevisionTemplate(containers=[run_v2.Container(startup_probe=probe)])).settings["startup probe"]


def test_a_token_in_a_probes_header_is_compared_and_not_shown() -> None:
    assert probed("Bearer 123") == probed("Bearer 123") != probed("Bearer 456")
    assert "/ready" in probed("Bearer 123")
    assert "Bearer" not in probed("Bearer 123")
