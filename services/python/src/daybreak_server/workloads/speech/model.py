"""``speech``: live translation of speech for many sessions at once, on caches of fixed memory.

A turn of a session begins with a *prefill*: the encoder reads the turn's blocks of audio, and the language model reads
an opening (which may be empty), the embeddings of the blocks, and the marker, which names the target language. A
prefill can be cut between any two blocks, because all that the next block needs is in the caches. Each *decode* step
then feeds the last token back and returns the next one. The end-of-turn token is never fed back. All sessions of a
batch share each matrix multiplication of the language model, whatever their positions, and whether they prefill or
decode. Only attention keeps the sessions apart: each sees only its own pages of cache.

The memory of all caches is reserved once. It suffices for a fixed number of sessions, each with the most memory that a
session can ever need. So memory cannot run out later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from daybreak_server.workloads.base import Group, ModelMissingError
from daybreak_server.workloads.sessions import (
    LanguagePair,
    PastTurn,
    Prefill,
    SessionFailedError,
    Shape,
    StepResult,
    Token,
)
from daybreak_server.workloads.speech.folder import SpeechFolder, read_folder
from daybreak_server.workloads.speech.paged_language_model import PAGE_SIZE, PagedLanguageModel
from daybreak_server.workloads.speech.pages import PageTable, pages_at_most
from daybreak_server.workloads.speech.spec import TINY, SpeechOptions, options_of
from daybreak_server.workloads.text_batches.device import device_of

BYTES_PER_SAMPLE = 2
RECENT = 8


@dataclass(slots=True)
class _Session:
    slot: int
    table: PageTable
    pair: LanguagePair
    next: list[int] = field(default_factory=list)
    """The last token, which the next decode step feeds to the model. Empty if no turn is open."""
    written: int = 0
    """Tokens of the present turn."""
    limit: int = 0
    """The most tokens that the present turn may have."""
    unfinished: int = 0
    """How many blocks of an unfinished turn have been read."""
    embedded: list[Tensor] = field(default_factory=list)
    """The embeddings of the blocks that the encoder has read for the present step. If the language model then fails,
    the repeated step uses these embeddings."""
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    """The newest tokens. The text of the next token depends on them, for example whether it begins with a space."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A piece of a turn: what the engine sent, and its blocks of audio, [blocks, samples]."""

    item: Prefill
    session: _Session
    blocks: Tensor


class Speech:
    """Implements :class:`daybreak_server.workloads.sessions.MixedSessionModel`."""

    shape: Shape

    def load(self, group: Group) -> None:
        """Load the model and reserve the caches. :raises ModelMissingError: if there is no model that can be run."""
        if group.size != 1:
            raise ModelMissingError(
                f"this workload runs in groups of one rank, not {group.size}; set `ranks: 1`, and more groups for more "
                "sessions"
            )
        self._options = options_of(group.options)
        self._device = device_of(group)
        folder = Path(self._options.model) if self._options.model else TINY
        self._use(read_folder(folder, dtype=getattr(torch, self._options.dtype), device=self._device))

    def _use(self, parts: SpeechFolder) -> None:
        self._parts, self._vocabulary = parts, parts.vocabulary
        max_blocks = min(
            self._options.max_turn_blocks, parts.max_turn_blocks or self._options.max_turn_blocks
        )
        longest_turn = self._turn_positions(max_blocks)
        each = self._bytes_each(parts, longest_turn)
        sessions = int(self._options.cache_mb * 1_000_000 // each)
        if sessions < 1:
            raise ModelMissingError(
                f"cache_mb is {self._options.cache_mb:g}, and one session needs {each / 1e6:.1f} MB; raise cache_mb"
            )
        self._encoder = parts.encoder
        self._encoder.reserve(sessions)
        self._lm = PagedLanguageModel(
            parts.language_model,
            sessions=sessions,
            window=parts.window,
            longest_turn=longest_turn,
            attention=self._attention(self._options),
        )
        self._slots = list(range(sessions))[::-1]
        self._sessions: dict[str, _Session] = {}
        self._block_bytes = self._encoder.block_samples * BYTES_PER_SAMPLE
        self.shape = Shape(
            pairs=self._vocabulary.pairs,
            block_samples=self._encoder.block_samples,
            window_turns=parts.past_blocks,
            max_sessions=sessions,
            max_turn_tokens=parts.first_turn_tokens,
            block_tokens=self._encoder.block_embeddings,
            max_turn_blocks=max_blocks,
        )

    def _attention(self, options: SpeechOptions) -> str:
        if options.attention == "auto":
            return "flex" if self._device.startswith("cuda") else "gather"
        return options.attention

    def _turn_positions(self, blocks: int) -> int:
        """The most positions that a turn of this many blocks can have, including the silence after the last audio."""
        blocks += self._parts.silence_blocks
        vocabulary = self._vocabulary
        frame = max(len(vocabulary.opening(pair)) + len(vocabulary.marker(pair)) for pair in vocabulary.pairs)
        return blocks * self._parts.encoder.block_embeddings + frame + self._limit(blocks)

    def _limit(self, blocks: int) -> int:
        return self._parts.first_turn_tokens + (blocks - 1) * self._parts.more_turn_tokens

    def _bytes_each(self, parts: SpeechFolder, longest_turn: int) -> int:
        config = parts.language_model.config
        pages = pages_at_most(parts.window, longest_turn, PAGE_SIZE)
        size = parts.language_model.embed.weight.element_size()
        position = 2 * config.layers * config.kv_heads * config.head_dim * size
        return pages * PAGE_SIZE * position + parts.encoder.slot_bytes

    def warm_up(self) -> None:
        """Translate two blocks of silence, for two sessions at once if there is memory for two."""
        names = [f"warm-up-{number}" for number in range(min(2, self.shape.max_sessions))]
        audio = bytes(2 * self._block_bytes)
        for name in names:
            self.open(name, self.shape.pairs[0])
        self.prefill([Prefill(session=name, audio=audio) for name in names])
        self.decode(names)
        for name in names:
            self.close(name)

    def open(self, session: str, pair: LanguagePair, past: Sequence[PastTurn] = ()) -> None:
        """Reserve the session's memory, and feed the newest of its past turns to the model.

        :raises SessionFailedError: if there is no memory, no such pair, or the past cannot be fed.
        """
        if session in self._sessions:
            raise SessionFailedError(f"session {session} is open already")
        if pair not in self.shape.pairs:
            raise SessionFailedError(
                f"this model does not translate {pair.source_name} to {pair.target_name}"
            )
        if not self._slots:
            raise SessionFailedError(f"all {self.shape.max_sessions} sessions of this group are taken")
        slot = self._slots.pop()
        self._encoder.reset(slot)
        self._sessions[session] = _Session(slot=slot, table=self._lm.table(), pair=pair)
        try:
            self._feed_past(self._sessions[session], past)
        except SessionFailedError:
            self.close(session)
            raise

    def _feed_past(self, session: _Session, past: Sequence[PastTurn]) -> None:
        """Feed each turn's opening, audio, marker and tokens in one step (teacher forcing).

        If a turn is incomplete, its last token is not fed here: the next decode step feeds it.
        """
        if not all(turn.complete for turn in past[:-1]):
            raise SessionFailedError("a turn of the past is not complete, and is not the last one")
        for turn in self._newest(past):
            blocks = self._blocks(turn.audio, last=turn.last)
            self._check_tokens(turn.tokens, self._limit(len(blocks)))
            text = [*self._vocabulary.marker(session.pair), *turn.tokens]
            fed = text if turn.complete else text[:-1]
            session.next = [] if turn.complete else text[-1:]
            session.limit, session.written = self._limit(len(blocks)), len(turn.tokens)
            session.table.begin_turn()
            speech = self._hear([session], [blocks])[0]
            self._lm.step([session.table], [self._turn(session, speech, fed)])
            session.embedded.clear()
        session.recent.extend(token for turn in past for token in turn.tokens)

    def _newest(self, past: Sequence[PastTurn]) -> Sequence[PastTurn]:
        """The newest turns that together have at least ``past_blocks`` blocks, or all turns if they have fewer.

        Older turns do not affect what comes next.
        """
        first, blocks = len(past), 0
        while first and blocks < self._parts.past_blocks:
            first -= 1
            blocks += math.ceil(len(past[first].audio) / self._block_bytes)
        return past[first:]

    def _check_tokens(self, tokens: Sequence[int], limit: int) -> None:
        known = self._parts.language_model.config.vocabulary
        if len(tokens) > limit or not all(0 <= token < known for token in tokens):
            raise SessionFailedError(
                f"a past turn has {len(tokens)} tokens (at most {limit}), or a token that is not below {known}"
            )

    def _blocks(self, audio: bytes, *, last: bool, before: int = 0) -> Tensor:
        """The blocks of a turn, [blocks, samples]. If ``last``, blocks of silence follow. ``before``: how many blocks
        of the turn were read before."""
        if (
            len(audio) % BYTES_PER_SAMPLE
            or (len(audio) % self._block_bytes and not last)
            or not (audio or last)
        ):
            raise SessionFailedError(
                f"a turn has {len(audio)} bytes of audio, and needs a whole number of blocks of {self._block_bytes}"
            )
        count = math.ceil(len(audio) / self._block_bytes)
        if self.shape.blocks_that_fit(before + count) < before + count:
            raise SessionFailedError(
                f"a turn has {before + count} blocks of audio, more than max_turn_blocks: {self.shape.max_turn_blocks}"
            )
        count += self._parts.silence_blocks if last else 0
        samples = np.zeros(count * self._encoder.block_samples, np.float32)
        samples[: len(audio) // BYTES_PER_SAMPLE] = np.frombuffer(audio, "<i2").astype(np.float32) / 32768
        return torch.from_numpy(samples.reshape(count, self._encoder.block_samples))

    def _hear(self, sessions: Sequence[_Session], audio: Sequence[Tensor]) -> list[Tensor]:
        """The speech embeddings of each session's blocks.

        The encoder reads the first blocks of all sessions as one batch, then the second blocks, and so on.
        """
        for number in range(max(map(len, audio), default=0)):
            rows = [
                row for row, blocks in enumerate(audio) if len(sessions[row].embedded) <= number < len(blocks)
            ]
            if not rows:
                continue  # an earlier step, which failed, has read them
            batch = torch.stack([audio[row][number] for row in rows])
            for row, block in zip(
                rows, self._encoder.encode([sessions[row].slot for row in rows], batch), strict=True
            ):
                sessions[row].embedded.append(block)
        return [torch.cat(session.embedded) for session in sessions]

    def _turn(self, session: _Session, speech: Tensor, text: Sequence[int], *, opens: bool = True) -> Tensor:
        """The embeddings of a turn: the opening, the speech, and the marker with the tokens after it."""
        opening = self._vocabulary.opening(session.pair) if opens else ()
        return torch.cat((self._lm.embed(opening), speech, self._lm.embed(text)))

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        """Read the audio of one turn for each session, and return the first token of each."""
        return [answer for answer in self.step(batch, ())[0] if answer is not None]

    def decode(self, sessions: Sequence[str]) -> Sequence[Token | SessionFailedError]:
        """Return the next token of each session."""
        return [answer for answer in self.step((), sessions)[1] if answer is not None]

    def step(
        self, prefill: Sequence[Prefill], decode: Sequence[str]
    ) -> tuple[Sequence[StepResult], Sequence[StepResult]]:
        """Run both phases in one call: read pieces of turns, and decode other sessions."""
        answers: dict[str, StepResult] = {}
        reading: list[_Reading] = []
        writing: dict[str, _Session] = {}
        for item in prefill:
            try:
                reading.append(self._reading(item))
            except SessionFailedError as exc:
                answers[item.session] = exc
        for name in decode:
            try:
                writing[name] = self._writing(name)
            except SessionFailedError as exc:
                answers[name] = exc
        if reading or writing:
            answers |= self._run(reading, writing)
        return [answers[item.session] for item in prefill], [answers[name] for name in decode]

    def _reading(self, item: Prefill) -> _Reading:
        """The input for one piece of a turn. :raises SessionFailedError: if the piece cannot be read."""
        session = self._session(item.session)
        if session.next:
            raise SessionFailedError(f"the present turn of session {item.session} has not ended")
        return _Reading(item, session, self._blocks(item.audio, last=item.last, before=session.unfinished))

    def _writing(self, name: str) -> _Session:
        """A session that decodes. :raises SessionFailedError: if no turn of the session is open."""
        session = self._session(name)
        if not session.next:
            raise SessionFailedError(f"no turn of session {name} is open")
        return session

    def _run(self, reading: Sequence[_Reading], writing: Mapping[str, _Session]) -> dict[str, StepResult]:
        """The results of one step of the encoder and one of the language model."""
        speech = self._hear([entry.session for entry in reading], [entry.blocks for entry in reading])
        new = [self._piece(entry, embedded) for entry, embedded in zip(reading, speech, strict=True)]
        if writing:
            fed = self._lm.embed([session.next[0] for session in writing.values()])
            new += [row[None] for row in fed]
        sessions = [*(entry.session for entry in reading), *writing.values()]
        best = self._lm.step([session.table for session in sessions], new).argmax(-1).tolist()
        answers: dict[str, StepResult] = {}
        for entry, token in zip(reading, best[: len(reading)], strict=True):
            session, blocks = entry.session, entry.session.unfinished + len(entry.blocks)
            session.embedded.clear()
            session.unfinished = blocks if entry.item.unfinished else 0
            session.limit, session.written = self._limit(blocks), 0
            name = entry.item.session
            answers[name] = None if entry.item.unfinished else self._take(name, session, token)
        for (name, session), token in zip(writing.items(), best[len(reading) :], strict=True):
            answers[name] = self._take(name, session, token)
        return answers

    def _piece(self, entry: _Reading, speech: Tensor) -> Tensor:
        """The embeddings of a piece. The first piece begins the turn, and the last one has the marker."""
        session = entry.session
        if not session.unfinished:
            session.table.begin_turn()
        marker = () if entry.item.unfinished else self._vocabulary.marker(session.pair)
        return self._turn(session, speech, marker, opens=not session.unfinished)

    def _take(self, name: str, session: _Session, token: int) -> Token:
        """The answer for a token that the model chose: the text, or the end of the turn."""
        if token in self._vocabulary.ends_turn or session.written >= session.limit:
            session.next = []
            return Token(session=name, token=None)
        session.next, session.written = [token], session.written + 1
        text = self._vocabulary.text(tuple(session.recent), token)
        session.recent.append(token)
        return Token(session=name, token=token, text=text, ends_segment=self._vocabulary.ends_segment(token))

    def _session(self, name: str) -> _Session:
        found = self._sessions.get(name)
        if found is None:
            raise SessionFailedError(f"session {name} is not open here")
        return found

    def close(self, session: str) -> None:
        """Free the session's memory. Closing a session that is not open does nothing."""
        closed = self._sessions.pop(session, None)
        if closed is not None:
            closed.table.free()
            self._slots.append(closed.slot)

    def memory(self) -> tuple[int, int]:
        """The bytes of caches in use, and the bytes that are reserved."""
        page, sessions = self._lm.memory.bytes_per_page, self.shape.max_sessions
        used = self._lm.pool.used * page + len(self._sessions) * self._encoder.slot_bytes
        return used, self._lm.pool.pages * page + sessions * self._encoder.slot_bytes
