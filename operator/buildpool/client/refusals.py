"""What an error of kubectl means, and its remedy. Pure.

kubectl says in words what went wrong. Only what the API server has answered has a form to rely on;
all else is shown as it is, with what can be tried.
"""

from __future__ import annotations

import re
from typing import Final

from buildpool.core import naming
from buildpool.core.errors import (
    BuildpoolError,
    KubernetesError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)

MAX_SHOWN_CHARACTERS: Final = 600
"""Characters of what another program said that are shown."""
_ANSWER: Final = "Error from server ("
_NO_KUBECTL: Final = (
    "kubectl is not on the PATH; install it: https://kubernetes.io/docs/tasks/tools"
)


def one_line(text: str) -> str:
    """What another program said, fit for a terminal: one line, nothing that moves a cursor."""
    shown = unmoving(" ".join(text.split()))
    return shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}…"


def unmoving(text: str) -> str:
    """A text whose lines are its own, and that does nothing else to a terminal."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)


def no_kubectl() -> BuildpoolError:
    """There is no kubectl."""
    return BuildpoolError(_NO_KUBECTL)


def no_cluster(said: str) -> BuildpoolError:
    """Kubectl does not know which cluster is meant."""
    return BuildpoolError(
        f"no cluster is known ({_without_prefix(said)}); "
        "set KUBECONFIG to a kubeconfig with a current context, or name one by --context"
    )


def refusal(said: str, *, what: str, namespace: str, doing: str = "read") -> KubernetesError:
    """What kubectl's error about an object means.

    NotFoundError: there is no such object. RefusedError: the user may not, or the cluster does not
    know such objects. UnavailableError: the API server does not answer.
    """
    line = _last_line(said)
    reason, _, message = line.removeprefix(_ANSWER).partition("): ")
    if not line.startswith(_ANSWER):
        return UnavailableError(
            f"{what} cannot be read: {_without_prefix(line)}; see what kubectl get --raw=/version "
            "says"
        )
    if reason == "NotFound" and "could not find the requested resource" in message:
        return RefusedError(
            f"the cluster does not know {naming.KIND}s ({one_line(message)}); "
            "install the operator, or name another cluster by --context"
        )
    if reason == "NotFound":
        return NotFoundError(f"namespace {namespace} has no {what}")
    if reason == "Forbidden":
        return RefusedError(
            f"you may not {doing} {what} ({one_line(message)}); ask for that right in "
            f"namespace {namespace}, or name another namespace by -n"
        )
    if reason == "Unauthorized":
        return RefusedError(
            f"the cluster does not know who you are ({one_line(message)}); log in again"
        )
    return UnavailableError(f"{what} cannot be read: {one_line(line)}; try again")


def no_pool(key: naming.PoolKey) -> NotFoundError:
    """The pool does not exist."""
    return NotFoundError(
        f"namespace {key.namespace} has no {naming.KIND} {key.name}; "
        f"kubectl get {naming.SHORT_NAME} -A lists all there are; -n names another namespace"
    )


def _last_line(said: str) -> str:
    """The line that counts: warnings, and what a credential plugin says, come before it."""
    lines = [line for line in said.splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith(_ANSWER)]
    return (answers or lines or ["kubectl said nothing"])[-1]


def _without_prefix(said: str) -> str:
    return one_line(_last_line(said)).removeprefix("error: ")


_ERRORS: Final = re.compile(
    r"error: |Error from server |Unable to connect |The connection to the |[EFW]\d{4} "
)
"""How lines begin by which kubectl says what went wrong."""
_BEGINNINGS: Final = (
    "error: ",
    "Error from server ",
    "Unable to connect ",
    "The connection to the ",
)


class Hearing:
    """Tells kubectl's errors from all else that it says, such as how to log in.

    All else the user sees at once, a prompt without an end of line, too; but nothing that follows
    an answer of the API server, of which it is a part.
    """

    def __init__(self) -> None:
        """Nothing is heard yet."""
        self.errors: list[str] = []
        """The lines that say what went wrong."""
        self._line = ""
        self._is_shown = False
        self._is_answered = False

    def hear(self, text: str) -> str:
        """What has to be shown now that this was said."""
        shown = ""
        for piece in re.findall(r"[^\n]*\n|[^\n]+", text):
            self._line += piece
            if self._is_shown:
                shown += piece
            elif not (self._is_answered or _may_be_error(self._line)):
                shown += self._line
                self._is_shown = True
            if piece.endswith("\n"):
                shown += self.end()
        return shown

    def end(self) -> str:
        """What has to be shown now that the line has ended."""
        line, is_shown = self._line, self._is_shown
        self._line, self._is_shown = "", False
        if is_shown or not line:
            return ""
        self._is_answered = self._is_answered or line.startswith("Error from server ")
        if self._is_answered or _ERRORS.match(line):
            self.errors.append(line.rstrip("\n"))
            return ""
        return line


def _may_be_error(line: str) -> bool:
    """Whether a line may be an error, as far as it was said."""
    is_begun = re.fullmatch(r"[EFW]\d{0,4}", line) or any(b.startswith(line) for b in _BEGINNINGS)
    return bool(is_begun or _ERRORS.match(line))
