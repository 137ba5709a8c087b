"""The frozen nouns of a release: values that travel as JSON through tasks, subflows, the record and the documents."""

from relais.model.made import Built, Candidate, Judgement, Layer, Move, Pushed, Verdict, VerdictWord, Window, Word
from relais.model.place import App, Commit, ServiceName, Source, Text
from relais.model.planned import Kind, Line, Plan, Wheel
from relais.model.record import Problem, Record, Timing, medians
from relais.model.serving import Revision, Serving, Share, Spec, Split, Stable, Target
from relais.model.values import LATEST, SIGNS, Finding, Outcome, Value, blocking

__all__ = [
    "LATEST",
    "SIGNS",
    "App",
    "Built",
    "Candidate",
    "Commit",
    "Finding",
    "Judgement",
    "Kind",
    "Layer",
    "Line",
    "Move",
    "Outcome",
    "Plan",
    "Problem",
    "Pushed",
    "Record",
    "Revision",
    "ServiceName",
    "Serving",
    "Share",
    "Source",
    "Spec",
    "Split",
    "Stable",
    "Target",
    "Text",
    "Timing",
    "Value",
    "Verdict",
    "VerdictWord",
    "Wheel",
    "Window",
    "Word",
    "blocking",
    "medians",
]
