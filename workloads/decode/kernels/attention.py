"""Decode attention over a KV cache in one pass, in Triton; what latent attention (_mla_kernels) shares with it.

The blocks of all sequences and heads form one line, which the programs cut into equal parts: unequal lengths cost nothing, and
no number of splits has to be chosen. A unit is what shares keys: one (sequence, kv head), or one (sequence, block of heads) of
MLA. A program that holds a unit whole writes its output; where several share one, each leaves a partial sum. Few are added up by
the last to arrive, many by a second launch, which reads them side by side; both in the order of the programs.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _unit(at, lengths, ends, batch, UNITS: tl.constexpr, BN: tl.constexpr):
    """Sequence, unit of it, that unit's first block, its number of blocks and the sequence's length, of block ``at``."""
    b = tl.sum((ends <= at).to(tl.int32), 0)
    mine = batch == b
    length = tl.sum(tl.where(mine, lengths, 0), 0)
    blocks = (length + BN - 1) // BN
    begin = tl.sum(tl.where(mine, ends, 0), 0) - blocks * UNITS
    u = (at - begin) // blocks
    return b, u, begin + u * blocks, blocks, length


@triton.jit
def _part(program, total, programs):
    """The first block of a program's part."""
    return (total.to(tl.int64) * program // programs).to(tl.int32)


@triton.jit
def _holder(block, total, programs):
    """The program whose part holds a block."""
    return ((programs.to(tl.int64) * (block + 1) - 1) // total).to(tl.int32)


@triton.jit
def _softmax(scores, alive, most, weight, acc, SWAP: tl.constexpr, MASKED: tl.constexpr):
    """One step of the online softmax in base 2 over scores [GP, BN] (SWAP: [BN, GP], acc [D, GP])."""
    if MASKED:
        scores = tl.where(alive[:, None] if SWAP else alive[None, :], scores, float("-inf"))
    newest = tl.maximum(most, tl.max(scores, 0 if SWAP else 1))
    shrink = tl.exp2(most - newest)
    if SWAP:
        p, acc = tl.exp2(scores - newest[None, :]), acc * shrink[None, :]
    else:
        p, acc = tl.exp2(scores - newest[:, None]), acc * shrink[:, None]
    return p, newest, weight * shrink + tl.sum(p, 0 if SWAP else 1), acc


@triton.jit
def _tile(pointer, row, width, stride, alive, MASKED: tl.constexpr):
    """Rows [BN, len(width)] of a cache; zeros where a row is past the length."""
    at = pointer + row[:, None] * stride + width[None, :]
    return tl.load(at, alive[:, None], 0.0) if MASKED else tl.load(at)


@triton.jit
def _attend(
    q, k_ptr, v_ptr, row, alive, most, weight, acc, scale, D: tl.constexpr, SWAP: tl.constexpr, MASKED: tl.constexpr
):
    """One block of keys and values. SWAP: keys are the rows of the tensor cores' tile, so that they need no registers."""
    k = _tile(k_ptr, row, tl.arange(0, D), D, alive, MASKED)
    scores = (tl.dot(k, q.T) if SWAP else tl.dot(q, k.T)) * scale
    p, most, weight, acc = _softmax(scores, alive, most, weight, acc, SWAP, MASKED)
    v = _tile(v_ptr, row, tl.arange(0, D), D, alive, MASKED)
    return most, weight, tl.dot(v.T, p.to(v.dtype), acc) if SWAP else tl.dot(p.to(v.dtype), v, acc)


@triton.jit
def _leave(
    part_ptr, stat_ptr, slot, most, weight, acc, heads, width, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr
):
    """A partial sum into its slot."""
    mask = (heads < G)[:, None]
    tl.store(part_ptr + (slot * GP + heads[:, None]).to(tl.int64) * D + width[None, :], acc, mask)
    tl.store(stat_ptr + slot * 2 * GP + heads, most, heads < G)
    tl.store(stat_ptr + slot * 2 * GP + GP + heads, weight, heads < G)


@triton.jit
def _gathered(
    part_ptr, stat_ptr, first, last, total, programs, heads, width, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr
):
    """The sum of all partial sums of the unit that lies in blocks first to last."""
    most = tl.full((GP,), float("-inf"), tl.float32)
    weight = tl.zeros((GP,), tl.float32)
    acc = tl.zeros((GP, D), tl.float32)
    mask = (heads < G)[:, None]
    low = _holder(first, total, programs)
    for program in range(low, _holder(last - 1, total, programs) + 1):
        slot = 2 * program + (program == low).to(tl.int32)  # the first one's part begins with the unit
        theirs = tl.load(stat_ptr + slot * 2 * GP + heads, heads < G, float("-inf"))
        load = tl.load(stat_ptr + slot * 2 * GP + GP + heads, heads < G, 0.0)
        part = tl.load(part_ptr + (slot * GP + heads[:, None]).to(tl.int64) * D + width[None, :], mask, 0.0)
        newest = tl.where(heads < G, tl.maximum(most, theirs), 0.0)
        weight = weight * tl.exp2(most - newest) + load * tl.exp2(theirs - newest)
        acc = acc * tl.exp2(most - newest)[:, None] + part * tl.exp2(theirs - newest)[:, None]
        most = newest
    return weight, acc


@triton.jit
def _finish(out_ptr, part_ptr, stat_ptr, count_ptr, unit, at, upto, first, last, program, total, programs, most, weight, acc, heads,
            G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, INSIDE: tl.constexpr):  # fmt: skip
    """Write the unit's output [G, D], or leave this part of it; INSIDE: the last of its programs writes what all left."""
    width = tl.arange(0, D)
    target = out_ptr + (unit * G + heads[:, None]).to(tl.int64) * D + width[None, :]
    mask = (heads < G)[:, None]
    if (at == first) & (upto == last):
        tl.store(target, (acc / weight[:, None]).to(out_ptr.dtype.element_ty), mask)
    else:
        _leave(part_ptr, stat_ptr, 2 * program + (at == first).to(tl.int32), most, weight, acc, heads, width, G, GP, D)
        if INSIDE:
            tl.debug_barrier()  # every thread's part is written before one thread says so
            others = _holder(last - 1, total, programs) - _holder(first, total, programs)
            if tl.atomic_add(count_ptr + unit, 1, sem="acq_rel") == others:
                tl.debug_barrier()
                weight, acc = _gathered(part_ptr, stat_ptr, first, last, total, programs, heads, width, G, GP, D)
                weight = tl.where(heads < G, weight, 1.0)
                tl.store(target, (acc / weight[:, None]).to(out_ptr.dtype.element_ty), mask)
                tl.store(count_ptr + unit, 0)


@triton.jit
def combine(length_ptr, out_ptr, part_ptr, stat_ptr, batch_size, launched, UNITS: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr,
            BP: tl.constexpr, BN: tl.constexpr, SIDE: tl.constexpr, HOLDERS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """The outputs of the units that several programs share, from what these left: COLUMNS of one head a program of this launch, HOLDERS
    parts at a time. SIDE units of a sequence go side by side through its blocks, each in a program of its own. EARLY: launched while
    the kernel before it runs; which parts there are it finds out from the lengths alone, before it waits for them."""
    row_of_out, piece = tl.program_id(0) // (D // COLUMNS), tl.program_id(0) % (D // COLUMNS)
    unit, head = row_of_out // G, row_of_out % G
    b, u = unit // UNITS, unit % UNITS
    batch, width = tl.arange(0, BP), piece * COLUMNS + tl.arange(0, COLUMNS)
    sizes = (tl.load(length_ptr + batch, batch < batch_size, 0) + BN - 1) // BN
    ends = tl.cumsum(sizes, 0) * (UNITS // SIDE)
    total, blocks = tl.max(ends, 0), tl.sum(tl.where(batch == b, sizes, 0), 0)
    first = tl.sum(tl.where(batch == b, ends, 0), 0) - blocks * (UNITS // SIDE) + u // SIDE * blocks
    programs = tl.minimum(total, launched // SIDE)
    low, high = _holder(first, total, programs), _holder(first + blocks - 1, total, programs)
    if EARLY:
        gdc_wait()
    if (blocks > 0) & (high > low):
        most, weight, acc = float("-inf"), 0.0, tl.zeros((COLUMNS,), tl.float32)
        for base in range(low, high + 1, HOLDERS):
            program = base + tl.arange(0, HOLDERS)
            there = program <= high
            slot = 2 * (program * SIDE + u % SIDE) + (program == low).to(
                tl.int32
            )  # the first one's begins with the unit
            row = slot * GP + head
            part = tl.load(part_ptr + row[:, None].to(tl.int64) * D + width[None, :], there[:, None], 0.0)
            theirs = tl.load(stat_ptr + row + slot * GP, there, float("-inf"))
            load = tl.load(stat_ptr + row + slot * GP + GP, there, 0.0)
            newest = tl.maximum(most, tl.max(theirs, 0))
            keep, factor = tl.exp2(most - newest), tl.exp2(theirs - newest)
            acc = acc * keep + tl.sum(part * factor[:, None], 0)
            most, weight = newest, weight * keep + tl.sum(load * factor, 0)
        tl.store(out_ptr + row_of_out.to(tl.int64) * D + width, (acc / weight).to(out_ptr.dtype.element_ty))


@triton.jit
def _contiguous(
    q, k_ptr, v_ptr, begin, block, full, most, weight, acc, scale, D: tl.constexpr, BN: tl.constexpr, SWAP: tl.constexpr
):
    """The whole blocks ``block`` to ``full`` of a cache whose rows lie one after another from ``begin``."""
    for i in tl.range(block, full):
        row = begin + i * BN + tl.arange(0, BN)
        most, weight, acc = _attend(q, k_ptr, v_ptr, row, row >= 0, most, weight, acc, scale, D, SWAP, False)
    return most, weight, acc


@triton.jit
def _paged(q, k_ptr, v_ptr, table_ptr, h, block, full, length, most, weight, acc, scale, HKV: tl.constexpr, D: tl.constexpr, BN: tl.constexpr,
           PAGE: tl.constexpr, CHUNK: tl.constexpr, SWAP: tl.constexpr):  # fmt: skip
    """The same over pages [N, HKV, PAGE]; the table's entries of CHUNK blocks are read ahead, so that no load waits for one."""
    for chunk in range(block, full, CHUNK):
        base = chunk * BN // PAGE
        entry = base + tl.arange(0, 2 * CHUNK * BN // PAGE)
        pages = tl.load(table_ptr + entry, entry * PAGE < length, 0)
        for i in tl.range(chunk, tl.minimum(chunk + CHUNK, full)):
            position = i * BN + tl.arange(0, BN)
            page = tl.gather(pages, position // PAGE - base, 0)
            row = (page.to(tl.int64) * HKV + h) * PAGE + position % PAGE
            most, weight, acc = _attend(q, k_ptr, v_ptr, row, row >= 0, most, weight, acc, scale, D, SWAP, False)
    return most, weight, acc


@triton.jit
def decode(q_ptr, k_ptr, v_ptr, length_ptr, table_ptr, out_ptr, part_ptr, stat_ptr, count_ptr, scale, batch_size, table_width, capacity, launched,
           HKV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr,
           CHUNK: tl.constexpr, SWAP: tl.constexpr, INSIDE: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """out [B, HKV * G, D] = softmax(q k^T scale) v over each sequence's own length; ``scale`` includes log2(e).

    PAGE 0: the cache is [B, HKV, capacity, D]; else pages [N, HKV, PAGE, D] that the table [B, table_width] names.
    """
    if EARLY:
        gdc_launch_dependents()
    batch, heads, width = tl.arange(0, BP), tl.arange(0, GP), tl.arange(0, D)
    lengths = tl.load(length_ptr + batch, batch < batch_size, 0)
    ends = tl.cumsum((lengths + BN - 1) // BN, 0) * HKV
    total = tl.max(ends, 0)
    program, programs = tl.program_id(0), tl.minimum(total, launched)
    at = _part(program, total, programs)
    stop = tl.where(program < programs, _part(program + 1, total, programs), at)
    while at < stop:
        b, h, first, blocks, length = _unit(at, lengths, ends, batch, HKV, BN)
        upto = tl.minimum(stop, first + blocks)
        unit = b * HKV + h
        q = tl.load(q_ptr + (unit * G + heads[:, None]).to(tl.int64) * D + width[None, :], (heads < G)[:, None], 0.0)
        most = tl.full((GP,), float("-inf"), tl.float32)
        weight = tl.zeros((GP,), tl.float32)
        acc = tl.zeros((D, GP) if SWAP else (GP, D), tl.float32)
        full = tl.minimum(upto - first, length // BN)
        begin, table = unit.to(tl.int64) * capacity, table_ptr + b.to(tl.int64) * table_width
        if PAGE == 0:
            most, weight, acc = _contiguous(
                q, k_ptr, v_ptr, begin, at - first, full, most, weight, acc, scale, D, BN, SWAP
            )
        else:
            most, weight, acc = _paged(
                q,
                k_ptr,
                v_ptr,
                table,
                h,
                at - first,
                full,
                length,
                most,
                weight,
                acc,
                scale,
                HKV,
                D,
                BN,
                PAGE,
                CHUNK,
                SWAP,
            )
        if upto - first > full:
            position = full * BN + tl.arange(0, BN)
            alive, row = position < length, begin + position
            if PAGE > 0:
                row = (tl.load(table + position // PAGE, alive, 0).to(tl.int64) * HKV + h) * PAGE + position % PAGE
            most, weight, acc = _attend(q, k_ptr, v_ptr, row, alive, most, weight, acc, scale, D, SWAP, True)
        _finish(out_ptr, part_ptr, stat_ptr, count_ptr, unit, at, upto, first, first + blocks, program, total, programs, most, weight,
                acc.T if SWAP else acc, heads, G, GP, D, INSIDE)  # fmt: skip
        at = upto
