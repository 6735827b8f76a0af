"""Where something is, as daemons say of themselves.

A daemon may lie: a step that breaks out of its sandbox speaks for it. So what one has said first,
no other takes from it for as long as it is there, and each has room of its own: who says much makes
nothing forgotten that others have said.
"""

from __future__ import annotations

from collections.abc import Callable


class Whereabouts:
    """Names, each with the uid of the pod that has it. For one event loop."""

    def __init__(self, is_there: Callable[[str], bool], *, most: int) -> None:
        """``is_there``: whether there is the builder with this pod; ``most``: names of each."""
        self._is_there = is_there
        self._most = most
        self._holders: dict[str, tuple[str, bool]] = {}
        """By name; and whether it is sure."""
        self._names: dict[str, dict[str, None]] = {}
        """By uid, the oldest first."""

    def holder(self, name: str) -> str:
        """The uid of the pod that has it; empty where none is known that is there."""
        uid, _ = self._holders.get(name, ("", False))
        return uid if uid and self._is_there(uid) else ""

    def note(self, name: str, uid: str, *, is_sure: bool = False) -> None:
        """A daemon says that it has this. What is sure counts more than what is not."""
        holder, was_sure = self._holders.get(name, ("", False))
        if holder not in ("", uid) and (was_sure or not is_sure) and self._is_there(holder):
            return
        self.forget(name)
        if uid not in self._names:
            self._forget_gone()
        names = self._names.setdefault(uid, {})
        self._holders[name] = uid, is_sure or (was_sure and holder == uid)
        names[name] = None
        if len(names) > self._most:
            self.forget(next(iter(names)))

    def forget(self, name: str) -> None:
        """It is not known any more where this is."""
        uid, _ = self._holders.pop(name, ("", False))
        self._names.get(uid, {}).pop(name, None)

    def _forget_gone(self) -> None:
        for uid in [uid for uid in self._names if not self._is_there(uid)]:
            for name in self._names.pop(uid):
                del self._holders[name]
