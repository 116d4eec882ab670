"""Measures contestants beside each other: every round asks each of them in turn, so that a noisy machine treats all
alike, and what is reported are medians over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import orjson

from bench import cases
from bench.cases import Case, Speaks
from bench.load import Measured, ask_once, burst
from bench.peers.postgraphile import meaning
from bench.processes import Running, cpu_seconds, cpu_seconds_of_tree
from bench.sockets import StreamFailed
from bench.streams import Audience, Gathered, Streamed

CONNECTIONS = 8
COMPARED = 3
"""Answers of each contestant that are compared, before it is timed."""
WARM_UP_SECONDS = 0.5
WARM_UP_SUBSCRIBERS = 20


class DifferentAnswer(Exception):
    """Two contestants gave different data for the same request: their speed cannot be compared."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running server, and how it is asked."""

    running: Running
    speaks: Speaks = Speaks.GRAPHQL

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
    """What a contestant's subscribers saw: as fast as it went, and at given paces (deliveries a second)."""

    contestant: str
    gathered: list[Gathered] = field(default_factory=list)
    saturated: list[Streamed] = field(default_factory=list)
    paced: dict[float, list[Streamed]] = field(default_factory=dict)
    problem: str | None = None
    """Why there is nothing: its subscribers did not get what was sent."""

    @property
    def per_second(self) -> float:
        return median(streamed.per_second for streamed in self.saturated)

    @property
    def client_bound(self) -> bool:
        return median(streamed.client_bound for streamed in self.saturated) > 0

    def latency(self, share: float) -> float:
        """Seconds that this share of the events took at most, at full speed."""
        return _latency(self.saturated, share)

    def keeps(self, pace: float) -> bool:
        """Whether it delivers that many events a second."""
        return median(streamed.kept_up for streamed in self.paced[pace]) > 0

    def paced_latency(self, pace: float, share: float) -> float:
        """Seconds that this share of the events took at most, at a pace."""
        return _latency(self.paced[pace], share)

    @property
    def server_cpu_each(self) -> float:
        return sum(s.server_cpu_seconds for s in self.saturated) / sum(s.delivered for s in self.saturated)

    @property
    def database_cpu_each(self) -> float:
        return sum(s.database_cpu_seconds for s in self.saturated) / sum(s.delivered for s in self.saturated)

    @property
    def bytes_per_connection(self) -> float:
        """Of the first audience: later ones find memory that these have left."""
        return self.gathered[0].bytes_each

    @property
    def subscribe_seconds(self) -> float:
        return median(gathered.seconds for gathered in self.gathered)


def stream_ratio(ours: StreamResult, theirs: StreamResult) -> float:
    """Events a second of ours for each of theirs: the median over rounds of what the round saw."""
    rounds = zip(ours.saturated, theirs.saturated, strict=True)
    return median(mine.per_second / other.per_second for mine, other in rounds)


def ratio(ours: Result, theirs: Result) -> float:
    """Requests a second of ours for each of theirs: the median over rounds of what the round saw."""
    return median(mine.per_second / other.per_second for mine, other in zip(ours.bursts, theirs.bursts, strict=True))


def check_same(key: str, name: str, answers: list[Any], other_name: str, others: list[Any]) -> None:
    """Raises DifferentAnswer, with what differs."""
    for mine, other in zip(answers, others, strict=True):
        if mine != other:
            raise DifferentAnswer(f"{key}: {name} and {other_name} differ:\n{str(mine)[:600]}\n{str(other)[:600]}")


def quantile(values: Sequence[float], share: float) -> float:
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
                case_of[contestant.name], self.token, contestant.running.port, contestant.speaks
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
        paces: Sequence[float],
    ) -> list[StreamResult]:
        """Events to so many subscribers. Who fails is told by its result's `problem`, and asked nothing more."""
        results = {contestant.name: StreamResult(contestant.name) for contestant in contestants}
        for number in range(-1, rounds):
            for contestant in _rotated(contestants, number):
                audience, result = audiences[contestant.name], results[contestant.name]
                if result.problem is None:
                    try:
                        if number < 0:
                            # What is made once for the first subscriber is not what each of them takes.
                            await audience.gather(min(WARM_UP_SUBSCRIBERS, subscribers))
                        else:
                            await self._stream_round(contestant, audience, subscribers, paces, result)
                    except StreamFailed as failed:
                        result.problem = str(failed)
                    await audience.leave()
        return list(results.values())

    async def _stream_round(
        self,
        contestant: Contestant,
        audience: Audience,
        subscribers: int,
        paces: Sequence[float],
        result: StreamResult,
    ) -> None:
        pid = contestant.running.pid
        result.gathered.append(await audience.gather(subscribers))
        server, database = cpu_seconds(pid), cpu_seconds_of_tree(self.database_pid)
        saturated = await audience.saturate(2 * self.seconds)
        saturated.server_cpu_seconds = cpu_seconds(pid) - server
        saturated.database_cpu_seconds = cpu_seconds_of_tree(self.database_pid) - database
        result.saturated.append(saturated)
        for pace in paces:
            result.paced.setdefault(pace, []).append(await audience.pace(2 * self.seconds, pace))

    async def _check_equal(self, contestants: Sequence[Contestant], case_of: dict[str, Case]) -> None:
        first, *others = contestants
        expected = await self._answers(first, case_of[first.name])
        for other in others:
            answers = await self._answers(other, case_of[other.name])
            if other.speaks is Speaks.POSTGRAPHILE:
                check_same(case_of[first.name].key, first.name, meaning(expected), other.name, meaning(answers))
            else:
                check_same(case_of[first.name].key, first.name, expected, other.name, answers)

    async def _answers(self, contestant: Contestant, case: Case) -> list[Any]:
        port = contestant.running.port
        following = cases.requests(case, self.token, port, contestant.speaks)
        return [orjson.loads(await ask_once(port, following()))["data"] for _ in range(COMPARED)]


def _latency(streamed: Sequence[Streamed], share: float) -> float:
    return quantile([value for one in streamed for value in one.latencies], share)


def _rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    place = by % len(contestants)
    return [*contestants[place:], *contestants[:place]]
