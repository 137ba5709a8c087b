"""The documents of a release, rendered from its record: pure edits, bytes in, bytes out; every byte outside the edit stays."""

from relais.documents.facts import language_of as language_of
from relais.documents.index import index as index
from relais.documents.journal import journal as journal
from relais.documents.names import build_tag as build_tag
from relais.documents.names import paths as paths
from relais.documents.pages import checklist_page as checklist_page
from relais.documents.pages import plan_page as plan_page
from relais.documents.pages import verdict_page as verdict_page
from relais.documents.report import release_of as release_of
from relais.documents.report import report as report
from relais.documents.sync import sync as sync
from relais.documents.words import Language as Language
