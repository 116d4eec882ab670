"""Measures contestants beside each other: every round asks each of them in turn, so that a noisy machine treats all
alike, and what is reported are medians over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import orjson

from bench import cases
from bench.cases import Case
from bench.load import Measured, ask, burst
from bench.processes import Running, cpu_seconds, cpu_seconds_of_tree
from bench.streams import Audience, Streamed

CONNECTIONS = 8
WARM_UP_SECONDS = 0.5


class DifferentAnswer(Exception):
    """Two contestants gave different data for the same request: their speed cannot be compared."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running server, and whether it speaks GraphQL."""

    running: Running
    graphql: bool = True

    @property
    def name(self) -> str:
        return self.running.name


@dataclass
class Result:
    """What a contestant did in one case, round by round."""

    contestant: str
    bursts: list[Measured] = field(default_factory=list)
    server_cpu: float = 0.0
    database_cpu: float = 0.0

    @property
    def requests(self) -> int:
        return sum(burst.requests for burst in self.bursts)

    @property
    def per_second(self) -> float:
        return median(burst.per_second for burst in self.bursts)

    @property
    def client_bound(self) -> bool:
        return median(burst.client_bound for burst in self.bursts) > 0

    def latency(self, share: float) -> float:
        """Seconds that this share of the requests took at most."""
        return quantile([value for burst in self.bursts for value in burst.latencies], share)

    @property
    def server_cpu_each(self) -> float:
        return self.server_cpu / self.requests

    @property
    def database_cpu_each(self) -> float:
        return self.database_cpu / self.requests


@dataclass
class StreamResult:
    """What a contestant's subscribers saw: as fast as it went, and at a given pace."""

    contestant: str
    saturated: list[Streamed] = field(default_factory=list)
    paced: list[Streamed] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return median(streamed.per_second for streamed in self.saturated)


def ratio(ours: Result, theirs: Result) -> float:
    """Requests a second of ours for each of theirs: the median over rounds of what the round saw."""
    return median(mine.per_second / other.per_second for mine, other in zip(ours.bursts, theirs.bursts, strict=True))


def quantile(values: list[float], share: float) -> float:
    """The value that this share of the values is not above; 0 where there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """How long, with which token, and on which database."""

    token: str
    database_pid: int
    rounds: int
    seconds: float

    async def compare(
        self, case_of: dict[str, Case], contestants: Sequence[Contestant], *, connections: int = CONNECTIONS
    ) -> list[Result]:
        """Requests of a case, given for each contestant by name. Raises DifferentAnswer, WrongAnswer."""
        builders = {
            contestant.name: cases.requests(
                case_of[contestant.name], self.token, contestant.running.port, graphql=contestant.graphql
            )
            for contestant in contestants
        }
        if not any(case.writes for case in case_of.values()):
            await self._check_equal(contestants, case_of)
        results = {contestant.name: Result(contestant.name) for contestant in contestants}
        for contestant in contestants:
            await burst(
                contestant.running.port,
                builders[contestant.name],
                connections=connections,
                seconds=min(WARM_UP_SECONDS, self.seconds),
            )
        for number in range(self.rounds):
            for contestant in _rotated(contestants, number):
                result, pid = results[contestant.name], contestant.running.pid
                server, database = cpu_seconds_of_tree(pid), cpu_seconds_of_tree(self.database_pid)
                result.bursts.append(
                    await burst(
                        contestant.running.port,
                        builders[contestant.name],
                        connections=connections,
                        seconds=self.seconds,
                    )
                )
                result.server_cpu += cpu_seconds_of_tree(pid) - server
                result.database_cpu += cpu_seconds_of_tree(self.database_pid) - database
        return list(results.values())

    async def stream(
        self,
        contestants: Sequence[Contestant],
        audiences: dict[str, Audience],
        subscribers: int,
        *,
        rounds: int,
        events_per_second: float,
    ) -> list[StreamResult]:
        """Events to so many subscribers of one session. Raises StreamFailed."""
        results = {contestant.name: StreamResult(contestant.name) for contestant in contestants}
        for number in range(rounds):
            for contestant in _rotated(contestants, number):
                audience, pid = audiences[contestant.name], contestant.running.pid
                await audience.gather(subscribers)
                server, database = cpu_seconds(pid), cpu_seconds_of_tree(self.database_pid)
                saturated = await audience.saturate(2 * self.seconds)
                saturated.server_cpu_seconds = cpu_seconds(pid) - server
                saturated.database_cpu_seconds = cpu_seconds_of_tree(self.database_pid) - database
                results[contestant.name].saturated.append(saturated)
                results[contestant.name].paced.append(await audience.pace(2 * self.seconds, events_per_second))
                await audience.leave()
        return list(results.values())

    async def _check_equal(self, contestants: Sequence[Contestant], case_of: dict[str, Case]) -> None:
        first, expected = contestants[0], None
        for contestant in contestants:
            case = case_of[contestant.name]
            data = cases.requests(case, self.token, contestant.running.port, graphql=contestant.graphql)()
            answer = orjson.loads(await ask(contestant.running.port, data))["data"]
            if expected is None:
                expected = answer
            elif answer != expected:
                raise DifferentAnswer(
                    f"{case.key}: {first.name} and {contestant.name} differ:\n"
                    f"{orjson.dumps(expected)[:600]!r}\n{orjson.dumps(answer)[:600]!r}"
                )


def _rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    place = by % len(contestants)
    return [*contestants[place:], *contestants[:place]]
