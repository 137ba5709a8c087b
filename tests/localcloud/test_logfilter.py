"""The Logging query language: what each form of a filter lets through, and what a bad one says."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localcloud.logs import entries, logfilter


def line(text: str, at: str = "2025-10-09T08:30:00Z", revision: str = "emergence-app-00002-p1-memory") -> Any:
    return entries.line_entry("demo", "europe-west1", "emergence-app", revision, "i-1", "stdout", text, at)


WORKER = line("✅ Worker 0 started")
STRUCTURED = line(
    '{"severity":"ERROR","message":"It broke","code":503,"ok":false,"none":null,"nested":{"deep":{"word":"Needle"}},'
    '"sizes":[8.5,9,6],"a.b":"dotted","start_time":"x","logging.googleapis.com/labels":{"run.googleapis.com/x":"one"}}'
)
REQUEST = entries.request_entry(
    "demo", "europe-west1", "emergence-app", "emergence-app-00001-abc", "i-1",
    method="GET", url="http://127.0.0.1:31007/api/health", status=503, request_size=10, response_size=0, user_agent="curl/8",
    remote_ip="127.0.0.1", latency_s=0.25, protocol="HTTP/1.1", trace="ab" * 16, start_ts="2025-10-09T08:31:00.5Z",
)  # fmt: skip
RUNBOOK = "resource.type=cloud_run_revision AND resource.labels.service_name=emergence-app AND resource.labels.revision_name~'p1-memory'"


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (RUNBOOK, WORKER),
        (f"{RUNBOOK} AND (textPayload:'MemoryTaskQueue' OR textPayload:'Worker')", WORKER),
        ('severity >= DEFAULT\nresource.labels.service_name = emergence-app', WORKER),
        ('logName = "projects/demo/logs/run.googleapis.com%2Fstdout"', WORKER),
        ("", WORKER),
        ("-- only a remark", WORKER),
        ("worker STARTED", WORKER),
        ('"worker 0 STARTED" -- in any case', WORKER),
        ('NOT "Worker 1"', WORKER),
        ('-"Worker 1"', WORKER),
        ("nothing OR NOT absent AND NOT lacking OR missing", WORKER),
        ('textPayload =~ "^✅ Worker \\\\d"', WORKER),
        ('textPayload =~ "Worker \\d"', WORKER),
        ('textPayload !~ "worker"', WORKER),
        ('textPayload : ("worker" AND "started")', WORKER),
        ('textPayload : ("nobody" OR NOT "stopped")', WORKER),
        ('textPayload = "✅ WORKER 0 started"', WORKER),
        ("textPayload:*", WORKER),
        ("text_payload:* resource.labels.location:*", WORKER),
        ("NOT jsonPayload:*", WORKER),
        ("jsonPayload:*", STRUCTURED),
        ("jsonPayload:needle", STRUCTURED),
        ("json_payload.nested.deep.word = needle", STRUCTURED),
        ('jsonPayload."a.b" = dotted', STRUCTURED),
        ("jsonPayload.start_time:*", STRUCTURED),
        ("NOT jsonPayload.startTime:*", STRUCTURED),
        ("jsonPayload.code >= 500 jsonPayload.code < 5.04e2", STRUCTURED),
        ("jsonPayload.sizes < 7 AND jsonPayload.sizes > 8.9", STRUCTURED),
        ("jsonPayload.ok = FALSE", STRUCTURED),
        ("jsonPayload.none = NULL_VALUE", STRUCTURED),
        ("NOT jsonPayload.code = NULL_VALUE", STRUCTURED),
        ("jsonPayload.code != NULL_VALUE", STRUCTURED),
        ("labels.run.googleapis.com/x = one", STRUCTURED),
        ('labels."run.googleapis.com/x" = one', STRUCTURED),
        ("severity = error", STRUCTURED),
        ("severity = 500", STRUCTURED),
        ("severity > WARNING AND severity <= CRITICAL", STRUCTURED),
        ("severity = (ERROR OR CRITICAL)", STRUCTURED),
        ("httpRequest.status >= 500 AND httpRequest.requestUrl : /api/health", REQUEST),
        ("http_request.status = (500 OR 503)", REQUEST),
        ('httpRequest.latency >= "250ms" httpRequest.latency < 0.3s', REQUEST),
        ('timestamp >= "2025-10-09T08:31:00Z" AND timestamp < "2025-10-09T10:31:01+02:00"', REQUEST),
        ('timestamp >= "2025-10-09T08:31:00.5+0000"', REQUEST),
        ('timestamp > "2025-10-09" timestamp < 2025-10-10', REQUEST),
        ("traceSampled = False", REQUEST),
        ('trace : "traces/abab"', REQUEST),
        ('log_id("run.googleapis.com/requests")', REQUEST),
        ("curl/8", REQUEST),
        ('SEARCH("CURL 8")', REQUEST),
        ('search(httpRequest.userAgent, "curl")', REQUEST),
        ('SEARCH(httpRequest, "`api/health` curl")', REQUEST),
        ('NOT SEARCH("cur") AND NOT SEARCH("`health api`")', REQUEST),
        ('ip_in_net(httpRequest.remoteIp, "127.0.0.0/8") AND source("projects/demo")', REQUEST),
        ('NOT ip_in_net(httpRequest.remoteIp, "10.0.0.0/8")', REQUEST),
        ("sample(logName, 1)", REQUEST),
    ],
)
def test_a_filter_lets_its_entry_through_and_its_negation_does_not(text: str, entry: Any) -> None:
    assert logfilter.compile(text)(entry)
    if text and not text.startswith("--"):
        assert not logfilter.compile(f"NOT (\n{text}\n)")(entry)


@pytest.mark.parametrize(
    "text",
    [
        "jsonPayload.absent != 1",
        "NOT NOT jsonPayload.absent = 1",
        "labels.absent !~ x",
        'jsonPayload.code = "many"',
        "jsonPayload.code =~ 5",
        "httpRequest.status:*",
        "and nothing",
        'jsonPayload.message =~ "it BROKE"',
    ],
)
def test_a_missing_field_or_a_value_of_another_type_compares_to_nothing(text: str) -> None:
    assert not logfilter.compile(text)(STRUCTURED)


def test_a_field_that_every_entry_has_is_compared_by_its_default() -> None:
    assert logfilter.compile("httpRequest.status < 500 AND textPayload != x")(STRUCTURED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("insertId = abc:def", "syntax error at line 1, column 15, token ':'. Text that contains ':' must be in double quotation marks."),
        ("severity=ERROR\n AND )", "syntax error at line 2, column 6, token ')'"),
        ("severity=", "it ends where something must follow"),
        ("(severity=ERROR", "it ends where something must follow"),
        ('"open', "The quotation is not closed."),
        ("AND", "syntax error at line 1, column 1, token 'AND'"),
        ("done!", "column 5, token '!'"),
        ("severity=FOO", "line 1, column 10: 'FOO' is not a severity; the severities are DEFAULT,"),
        ("timestamp > yesterday", "'yesterday' is not an RFC 3339 time"),
        ("timestamp > 2025-13-01", "month must be in"),
        ("thud = 1", "Field not found: 'thud'. The fields of a log entry are httpRequest,"),
        ("httpRequest.state = 1", "Field not found: 'httpRequest.state'. The fields of httpRequest are"),
        ("textPayload.thud = 1", "textPayload has no parts"),
        ("labels..x = 1", "it has an empty part"),
        ("httpRequest = x", "'httpRequest' is not a single value"),
        ("httpRequest.status = ok", "'ok' is not a number"),
        ('httpRequest.status =~ "5.."', "needs a field that holds text"),
        ("httpRequest.latency > 5", "'5' is not a duration such as 0.5s"),
        ("traceSampled = 1", "neither true nor false"),
        ('textPayload =~ "("', "is not a regular expression"),
        ('textPayload =~ "a(?=b)"', "invalid perl operator: (?="),
        ('cast(timestamp, STRING) =~ "^2025"', "line 1, column 1: The local cloud serves no function cast()"),
        ("sample(insertId, 2)", "line 1, column 1: sample takes a field and a fraction"),
        ('SEARCH("")', "SEARCH needs a word"),
        ('ip_in_net(httpRequest.remoteIp, "home")', "'home' is not a network"),
        ("ip_in_net(httpRequest.remoteIp)", "takes a field and a network"),
        ('SEARCH(thud, "x")', "Field not found: 'thud'"),
        ('source("folders/1")', "neither folders nor organisations"),
        ("log_id()", "log_id takes one log"),
        ("x" * 20_001, "it has 20001 characters; at most 20000 are allowed"),
        ("-(" * 200 + "x" + ")" * 200, "nested"),
        ("-(" * 6000 + "x" + ")" * 6000, "nested"),
    ],
)
def test_a_bad_filter_says_what_is_wrong_and_where(text: str, says: str) -> None:
    with pytest.raises(logfilter.BadFilter) as caught:
        logfilter.compile(text)
    assert says in str(caught.value)


# An independent reading of the language: a tree is written down as text, and judged directly on a plain dictionary.

WORDS = ("red", "green", "blue", "Blue sky", 'quo"te', "back\\slash", "AND", "-dash", "a:b", "x--y")
Tree = tuple[Any, ...]


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


leaves = st.one_of(
    st.tuples(st.just("has"), st.sampled_from(WORDS)),
    st.tuples(st.sampled_from(["=", "!=", ":"]), st.sampled_from(["one", "two"]), st.sampled_from(WORDS)),
    st.tuples(st.sampled_from(["<", ">=", "num="]), st.integers(-3, 3)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), st.sampled_from(["NOT ", "-"]), inner),
        st.tuples(st.just("or"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("and"), st.sampled_from([" AND ", " ", "\n", " -- remark\n AND "]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=12,
)
bodies = st.fixed_dictionaries({}, optional={"one": st.sampled_from(WORDS), "two": st.sampled_from(WORDS), "count": st.integers(-3, 3)})
STRENGTH = {"and": 0, "or": 1, "not": 2}


def written(tree: Tree, around: int = 0) -> str:
    kind = tree[0]
    if kind == "has":
        return quoted(tree[1])
    if kind in {"<", ">=", "num="}:
        return f"jsonPayload.count {kind.removeprefix('num')} {tree[1]}"
    if kind not in STRENGTH:
        return f"jsonPayload.{tree[1]} {kind} {quoted(tree[2])}"
    strength = STRENGTH[kind]
    if kind == "not":
        text = f"{tree[1]}{written(tree[2], 3)}"
    elif kind == "or":
        text = " OR ".join(written(part, strength + 1) for part in tree[1])
    else:
        text = tree[1].join(written(part, strength + 1) for part in tree[2])
    return f"({text})" if strength < around else text


def holds(tree: Tree, body: dict[str, Any]) -> bool:  # noqa: PLR0911
    match tree:
        case ("has", word):
            return any(word.lower() in str(value).lower() for value in body.values())
        case ("not", _, part):
            return not holds(part, body)
        case ("or", parts):
            return any(holds(part, body) for part in parts)
        case ("and", _, parts):
            return all(holds(part, body) for part in parts)
        case ("<" | ">=" | "num=" as sign, number):
            count = body.get("count")
            return count is not None and {"<": count < number, ">=": count >= number, "num=": count == number}[sign]
        case (sign, key, word):
            value = body.get(key)
            if value is None:
                return False
            same, part_of = value.lower() == word.lower(), word.lower() in value.lower()
            return bool({"=": same, "!=": not same, ":": part_of}[sign])
    raise AssertionError(tree)


@settings(max_examples=300, deadline=None)
@given(trees, bodies)
def test_filters_mean_what_an_independent_reading_says(tree: Tree, body: dict[str, Any]) -> None:
    entry = entries.LogEntry()
    entry.json_payload.update(body)
    assert logfilter.compile(written(tree))(entry) == holds(tree, body), written(tree)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.:=~!<>()\"'- \n\\,*ANDORT1", max_size=30))
def test_any_text_is_either_a_filter_or_refused_with_a_reason(text: str) -> None:
    try:
        logfilter.compile(text)(STRUCTURED)
    except logfilter.BadFilter as refused:
        assert str(refused)  # noqa: PT017


def test_a_sample_is_about_the_share_asked_for_and_the_same_again() -> None:
    chosen = [logfilter.compile("sample(insertId, 0.25)")(entries.LogEntry(insert_id=f"id-{number}")) for number in range(4000)]
    assert 800 < sum(chosen) < 1200
    assert chosen == [logfilter.compile("sample(insertId, 0.25)")(entries.LogEntry(insert_id=f"id-{number}")) for number in range(4000)]
