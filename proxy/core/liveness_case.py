"""What the liveness rules can ask about one evaluation: ages, windows, probe answers, signs of life, strikes.

Owns: `Case`, every comparison of an instant with a limit. Knows nothing of: the order of the rules, and their verdicts.

All windows are half-open (age < limit) except "recent", which includes its limit. An instant in the future, which
two clocks may produce, has a negative age and lies inside. A window of 0 is switched off: nothing lies inside.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from proxy.core.evidence import Ask, Evidence, Life, ProbeReading, ProbeState, Strikes
from proxy.core.presets import LivenessPolicy, Preset


@dataclass(slots=True, kw_only=True)
class Case:
    """One evaluation as the rules see it: the policy, the evidence, and the readings taken so far.

    `probes` and `life` hold only what was asked for; `last_read_at` is the instant of the latest of them, at first the
    opening. Everything that was read without being asked for stays unseen.
    """

    policy: LivenessPolicy
    evidence: Evidence
    probes: list[ProbeReading] = field(default_factory=list)
    life: list[Life] = field(default_factory=list)
    last_read_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.last_read_at = self.evidence.opened_at

    def take(self, ask: Ask, due: datetime) -> bool:
        """Take the first reading that answers `ask`, not earlier than `due`; False if there is none yet."""
        if ask is Ask.PROBE:
            probe = next((one for one in self.evidence.probes if one.at >= due and one not in self.probes), None)
            if probe is not None:
                self.probes.append(probe)
                self.last_read_at = probe.at
            return probe is not None
        life = next((one for one in self.evidence.life if one.read_at >= due and one not in self.life), None)
        if life is not None:
            self.life.append(life)
            self.last_read_at = life.read_at
        return life is not None

    def age_at_opening(self, instant: datetime | None) -> timedelta | None:
        """Return how long before the opening of the evaluation that was; None if it never was."""
        return None if instant is None else self.evidence.opened_at - instant

    def opened_within(self, limit: float, instant: datetime | None) -> bool:
        """Whether the evaluation opened less than `limit` seconds after `instant`; never where the limit is off."""
        age = self.age_at_opening(instant)
        return limit > 0 and age is not None and age < timedelta(seconds=limit)

    def probe_says(self, state: ProbeState) -> bool:
        """Whether the latest probe said so."""
        return bool(self.probes) and self.probes[-1].state is state

    def since_restart(self, limit: float) -> bool:
        """Whether less than `limit` seconds passed since the restart started or the runtime returned, the later."""
        return self.opened_within(limit, self.evidence.restart_started_at) or self.opened_within(
            limit, self.evidence.restart_returned_at
        )

    def since_restart_start(self, limit: float) -> bool:
        """Whether less than `limit` seconds passed since the restart started."""
        return self.opened_within(limit, self.evidence.restart_started_at)

    def settling(self) -> bool:
        """Whether a "not running" is doubted because of a restart; each preset has its own anchor."""
        if self.policy.preset is Preset.VERIFY_FIRST:
            return self.since_restart_start(self.policy.settle_window)
        return self.since_restart(self.policy.settle_window)

    def age_of_sign(self) -> timedelta | None:
        """Return how old the last sign of life was when the first reading found it; None if there never was one."""
        sign = self.life[0].last_sign_at
        return None if sign is None else self.life[0].read_at - sign

    def recent(self) -> bool:
        """Whether the first reading found a sign of life of at most the recent age, the limit included."""
        age, limit = self.age_of_sign(), self.policy.recent_heartbeat
        return limit > 0 and age is not None and age <= timedelta(seconds=limit)

    def newer_sign(self, life: Life) -> bool:
        """Whether that reading found a sign of life later than the restart's start."""
        began = self.evidence.restart_started_at or self.evidence.restart_returned_at
        return began is not None and life.last_sign_at is not None and life.last_sign_at > began

    def fresh(self) -> bool:
        """Whether any reading found a sign of life later than the restart's start, of a workspace with a URL."""
        return any(self.newer_sign(life) and life.has_url for life in self.life)

    def waited(self) -> timedelta:
        """How long signs of life have been looked for."""
        return self.life[-1].read_at - self.life[0].read_at

    def booting(self, age: timedelta | None) -> bool:
        """Whether the latest probe said `starting`, and that is to be believed of a boot of at most this age."""
        if not self.probe_says(ProbeState.STARTING):
            return False
        limit = self.policy.provisioning_timeout
        return limit == 0 or (age is not None and age < timedelta(seconds=limit))

    def standing(self) -> int:
        """How many stored strikes still count at the latest probe."""
        strikes = self.evidence.strikes
        if strikes.count == 0 or strikes.first_at is None:
            return 0
        age = self.probes[-1].at - strikes.first_at
        return strikes.count if age < timedelta(seconds=self.policy.strike_window) else 0

    def counted(self) -> Strikes:
        """Return the strikes with this evaluation among them, unless a sweep opened it."""
        if self.evidence.sweep:
            return self.evidence.strikes
        standing = self.standing()
        first_at = self.evidence.strikes.first_at if standing else self.probes[-1].at
        return Strikes(count=standing + 1, first_at=first_at)

    def forgiven(self) -> bool:
        """Whether the strikes, with this evaluation's, are still too few to be believed."""
        return self.standing() + (not self.evidence.sweep) < self.policy.strikes
