"""One launch as a drawing: the call on the host, the wait in the queue, the kernel on the GPU."""

from __future__ import annotations

from markupsafe import Markup

from moeprof import units
from moeprof.analysis.model import Launch


def launch_drawing(of: Launch) -> Markup:
    """The drawing with the medians of a window; lengths are not to scale."""
    call, wait, delay = units.us(of.api_ns_median), units.us(of.queue_ns_median), units.us(of.latency_ns_median)
    spoken = (
        f"One launch: the call on the host takes {call} (median). The kernel then waits {wait} in the queue, or {delay} "
        "where its stream was empty. Then the kernel runs."
    )
    return Markup(
        '<div class="launch" role="img" aria-label="{}">'
        '<span class="lane">host</span><span class="call">launch call<b>{}</b></span>'
        '<span class="lane gpu">GPU</span><span class="wait">wait in the queue<b>{}</b><small>empty stream: {}</small></span>'
        '<span class="kernel">kernel runs</span></div>'
    ).format(spoken, call, wait, delay)
