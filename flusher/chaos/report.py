"""What a run comes to, for a person and for a program. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flusher.chaos.compare import Compared


@dataclass(slots=True)
class Report:
    """A run: its options, what was done, what the client saw, what was counted, and what does not hold."""

    seed: int
    seconds: float
    rate: int
    every_s: float
    data_dir: str
    faults: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    journaled: int = 0
    repeated: int = 0
    drained_s: float = 0.0
    compared: Compared = field(default_factory=Compared)
    proof: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.compared.violations and bool(self.proof.get("ok"))

    @property
    def replay(self) -> str:
        """The command that does the same again."""
        options = {"seed": f"{self.seed}", "seconds": f"{self.seconds:g}", "rate": f"{self.rate}"}
        options["every"] = f"{self.every_s:g}"
        return " ".join(["taximeter", "chaos", *(f"--{name} {value}" for name, value in options.items())])

    def as_json(self) -> dict[str, Any]:
        """Return the form of `taximeter chaos --json`."""
        return {
            "ok": self.ok,
            "seed": self.seed,
            "seconds": self.seconds,
            "rate": self.rate,
            "every": self.every_s,
            "replay": self.replay,
            "data_dir": self.data_dir,
            "faults": dict(sorted(self.faults.items())),
            "events": {
                "sent": self.sent,
                "acknowledged": self.compared.acknowledged,
                "journaled": self.journaled,
                "repeated": self.repeated,
                "unanswered": self.compared.unanswered,
                "unanswered_counted": self.compared.unanswered_counted,
            },
            "sums": self.compared.sums,
            "violations": self.compared.violations,
            "differences": self.compared.differences,
            "drained_seconds": round(self.drained_s, 1),
            "proof": self.proof,
        }

    def text(self) -> str:
        """Return the summary that a person shows to others."""
        compared = self.compared
        held = not compared.violations
        what = ", ".join(f"{fault} {times}x" for fault, times in sorted(self.faults.items()))
        once, not_again, not_twice = (
            (": every one is counted exactly once", ": none is counted again", ", none twice") if held else ("", "", "")
        )
        journaled = f"{self.journaled:,} of these from the journal alone"
        counted = f"{compared.unanswered_counted:,} are counted"
        lines = [
            f"{sum(self.faults.values())} faults in {self.seconds:g} s: {what}",
            f"{self.sent:,} events sent, {compared.acknowledged:,} acknowledged, {journaled}{once}",
            f"{self.repeated:,} sent again after their answer{not_again}",
            f"{compared.unanswered:,} never answered: {counted}{not_twice}",
            f"{compared.sums:,} sums by user, meter and hour compared to the last digit",
            f"drained {self.drained_s:.1f} s after everything ran again",
            "the proof holds" if self.proof.get("ok") else f"the proof does not hold: {_failed(self.proof)}",
        ]
        if compared.violations:
            lines += ["", f"{compared.violations:,} VIOLATIONS:", *(f"  {one}" for one in compared.differences)]
        verdict = "0 lost, 0 counted twice." if self.ok else f"The data stay in {self.data_dir}."
        return "\n".join([*lines, "", verdict, f"Again: {self.replay}"]) + "\n"


def _failed(proof: dict[str, Any]) -> str:
    checks = [f"{check['name']}: {check['detail']}" for check in proof.get("checks", ()) if check["ok"] is not True]
    return "; ".join(checks) or "it could not be made"
