"""Labels for screen readers against what they name, in a page of the browser: the document as it stands after its scripts."""

from __future__ import annotations

import json

from browser.chromium import Browser

# Each rule returns a sentence for every label that is wrong.
CHECK = r"""
(() => {
  const wrong = [], text = e => (e ? e.textContent : "").replace(/\s+/g, " ").trim();
  const all = s => [...document.querySelectorAll(s)], label = e => e.getAttribute("aria-label");
  const numbers = s => s.match(/\d[\d,.]*\d|\d/g) || [];
  all("[aria-label='']").forEach(e => wrong.push("empty label: " + e.outerHTML.slice(0, 120)));
  all("div.scroll[role=region]").forEach(e => {
    const caption = text(e.querySelector("caption"));
    if (label(e) !== caption) wrong.push("region '" + label(e) + "' is a table of '" + caption + "'");
  });
  all(".figure[aria-label]").forEach(e => {
    const section = e.closest("section"), titles = [...section.querySelectorAll("h2, h3")].map(text);
    if (!titles.includes(label(e))) wrong.push("figure '" + label(e) + "' is below '" + titles[0] + "'");
    const before = section.previousElementSibling; // a second figure of one table
    if (!section.querySelector("table") && !(before && before.querySelector("table"))) wrong.push("no table has the numbers of figure '" + label(e) + "'");
  });
  all("[role=img][aria-label]").forEach(e => {
    const section = text(e.closest("section, header, main"));
    numbers(label(e)).forEach(n => { if (!section.includes(n)) wrong.push("'" + label(e) + "': " + n + " is not in its section"); });
    if (/tables? /.test(label(e)) && !document.querySelector("table")) wrong.push("'" + label(e) + "': the page has no table");
    if (e.querySelector("a, button, input, select, [tabindex]")) wrong.push("image '" + label(e) + "' contains controls");
  });
  all(".passes[aria-label], .heat[aria-label]").forEach(e => {
    const places = [...e.querySelectorAll("a")];
    if (!places.length || places.some(a => !/^#t=/.test(a.hash))) wrong.push("'" + label(e) + "': not all lead to a place");
  });
  all(".icicle[aria-label]").forEach(e => {
    if (![...e.querySelectorAll("button")].every(b => label(b).startsWith(text(b)))) wrong.push("icicle: a button is not what its label names");
  });
  all("nav[aria-label] a").forEach(a => { if (!document.getElementById(a.hash.slice(1))) wrong.push("contents: " + a.hash + " is not on the page"); });
  all("button[aria-label]").forEach(b => { if (text(b) && !label(b).includes(text(b))) wrong.push("button '" + text(b) + "' is labelled '" + label(b) + "'"); });
  return JSON.stringify(wrong);
})()
"""


def false_labels(browser: Browser) -> list[str]:
    """What is wrong with the labels of the open page."""
    return list(json.loads(browser.evaluate(CHECK)))
