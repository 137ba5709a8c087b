"""How documents say things: two languages, one clock, durations, sizes, and text that cannot break out of its place."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

Language = Literal["en", "fr"]

FRENCH: Mapping[str, str] = {
    # outcomes and states
    "passed": "réussi",
    "failed": "échoué",
    "skipped": "sauté",
    "waived": "dérogation",
    "not proven": "non prouvé",
    "not known": "inconnu",
    "none": "aucun",
    "None": "Aucun",
    "Promoted": "Promue",
    "RolledBack": "Annulée (rollback)",
    "Refused": "Refusée",
    "Held": "En attente d'une décision",
    "Interrupted": "Interrompue",
    "Planned": "Planifiée",
    "Failed": "Échouée",
    "promoted": "promue",
    "rolled back": "annulée",
    "held": "en attente",
    # the report
    "Deployment": "Déploiement",
    "Date": "Date",
    "Agent": "Agent",
    "Revision": "Révision",
    "Image": "Image",
    "Commit": "Commit",
    "Reference commit": "Commit de référence",
    "Previous commit": "Commit précédent",
    "Status": "Statut",
    "Run": "Exécution",
    "Changes": "Changements",
    "Results": "Résultats du déploiement",
    "Build & push": "Build & Push",
    "Build duration": "Durée build",
    "Push duration": "Durée push",
    "Image size": "Taille image",
    "in the registry": "dans le registre",
    "Digest": "Digest",
    "Platform": "Plateforme",
    "image used again, built from": "image réutilisée, construite depuis",
    "Cloud Run deployment": "Déploiement Cloud Run",
    "Deployment duration": "Durée déploiement",
    "Traffic": "Routage trafic",
    "to the new revision": "nouvelle révision",
    "unchanged": "inchangé",
    "Health": "Santé",
    "Healthy": "Healthy",
    "Ready, not verified": "Prête, non vérifiée",
    "Not healthy": "Dégradée",
    "Validation": "Validation",
    "Before traffic, at 0 %": "Avant le trafic, à 0 %",
    "In production": "En production",
    "What serves": "Ce qui sert",
    "Canary": "Canary",
    "Verdict": "Verdict",
    "From": "De",
    "To": "À",
    "Share": "Part",
    "Candidate: requests": "Candidate : requêtes",
    "Stable: requests": "Stable : requêtes",
    "errors": "erreurs",
    "Left out": "Écartées",
    "Revisions": "Révisions",
    "Ready": "Prête",
    "Image tag": "Image tag",
    "Created": "Créée",
    "Durations": "Durées",
    "Stage": "Étape",
    "Duration": "Durée",
    "Median": "Médiane",
    "Checks before deployment": "Contrôles avant déploiement",
    "reused": "repris d'une exécution précédente",
    "Plan": "Plan",
    "Change": "Changement",
    "What": "Quoi",
    "Before": "Avant",
    "After": "Après",
    "blocks": "bloque",
    "No differences.": "Aucune différence.",
    "added": "ajouté",
    "changed": "modifié",
    "removed": "retiré",
    "lowered": "abaissé",
    "kept": "conservé",
    "note": "note",
    "Metrics after deployment": "Métriques post-déploiement",
    "Representative logs": "Logs représentatifs",
    "Problems met": "Problèmes rencontrés",
    "Remedy": "Remède",
    "Where": "Où",
    "longer than usual": "plus long que d'habitude",
    "Rollback": "Rollback",
    "Not needed.": "Non nécessaire.",
    "Not applicable: no traffic was moved.": "Sans objet : aucun trafic n'a été déplacé.",
    "time not known": "heure inconnue",
    "Put back": "Remis en service",
    "Next steps": "Next steps",
    "Final checklist": "Checklist finale",
    # the checklist
    "Docker image built and pushed": "Image Docker buildée et pushée",
    "Cloud Run revision deployed": "Révision Cloud Run déployée",
    "Health check answers": "Le contrôle de santé répond",
    "Metrics published": "Métriques exposées",
    "Start-up log as expected": "Logs de démarrage comme attendu",
    "Traffic routed to the new revision": "Trafic routé vers la nouvelle révision",
    "Report written": "Documentation créée",
    "Index updated": "Index des déploiements mis à jour",
    "Synchronisation page updated": "Page de synchronisation mise à jour",
    "Journal updated": "Journal de passation mis à jour",
    "Smoke tests passed": "Smoke tests exécutés",
    # the journal and the synchronisation page
    "Journal": "Journal de passation",
    "Newest entries first.": "Entrées les plus récentes en premier.",
    "Work done": "Travaux réalisés",
    "Outcome": "Résultats",
    "Blockers": "Blocages",
    "Contact": "Contact",
    "Next": "Next",
    "Synchronisation": "Synchronisation",
    "Last sync": "Dernier sync",
    "Session": "Session",
    "Tests / checks": "Tests / vérifications",
    "deployment": "déploiement",
    "stable": "stable",
    "Required reading": "Lecture des consignes",
    "Preflight": "Contrôles avant déploiement (preflight)",
    "Docker image build": "Build image Docker",
    "Push to Artifact Registry": "Push Artifact Registry",
    "Cloud Run deployment, revision": "Déploiement Cloud Run révision",
    "Verification at 0 %": "Vérification à 0 %",
    "Documentation": "Documentation",
    # the index
    "Deployments": "Déploiements Cloud Run",
    "Releases of {service}, newest first.": "Index des déploiements de {service}, du plus récent au plus ancien.",
    "Description": "Description",
    "Image Tag": "Image Tag",
    "Doc": "Doc",
    "traffic": "trafic",
}


ENGLISH: Mapping[str, str] = {"RolledBack": "Rolled back"}


def translate(text: str, language: Language) -> str:
    """The English text in the language asked for; a text without a translation is a mistake of ours."""
    return ENGLISH.get(text, text) if language == "en" else FRENCH[text]


# -- numbers ------------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """0.4 s, 42 s, 3 min 12 s, 1 h 04 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count: int) -> str:
    """1.9 GB, 183 MB: powers of ten, as registries count."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor * 0.9995:
            value = count / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{count} B"


@dataclass(frozen=True)
class Clock:
    """The one clock of a team's documents."""

    zone: tzinfo

    @classmethod
    def of(cls, name: str) -> "Clock":
        return cls(ZoneInfo(name or "UTC"))

    def day(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%Y-%m-%d")

    def minute(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%H:%M")

    def second(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%H:%M:%S")

    def moment(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%Y-%m-%d %H:%M")

    def full(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%Y-%m-%d %H:%M %Z")

    def stamp(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%Y%m%d-%H%M%S")


# -- text that stays in its place ---------------------------------------------------------------------------------------

_CODE = re.compile(r"(?<![\\`])(`+)(?!`).+?(?<!`)\1(?!`)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def one_line(text: object) -> str:
    """Without newlines and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def inline(text: object) -> str:
    """Text within a line: code spans stay; tags, comments, links and lone backticks are plain text."""
    line, done, parts = one_line(text), 0, []
    for span in _CODE.finditer(line):
        parts += [_plain(line[done : span.start()]), span[0]]
        done = span.end()
    return "".join([*parts, _plain(line[done:])])


def _plain(text: str) -> str:
    return re.sub(r"(\\*)([`<])", lambda m: m[1] * 2 + "\\" + m[2], text).replace("](", r"]\(")


def code(text: object) -> str:
    """A code span, whatever is in it; nothing for nothing."""
    line = one_line(text)
    if not line:
        return ""
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"


def cell(markdown: object) -> str:
    """Markdown of one line as a cell of a table: no pipe ends it."""
    return re.sub(r"(\\*)\|", lambda m: m[1] * 2 + r"\|", one_line(markdown))


def block(text: str) -> str:
    """A fenced code block, whatever is in it."""
    plain = _COLOUR.sub("", text.replace("\r\n", "\n")).strip("\n")
    body = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in plain)
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", body)), default=0))
    return f"{ticks}\n{body}\n{ticks}"
