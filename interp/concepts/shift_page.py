"""The page of a concept shift: one HTML file, whose text comes from models and pictures and never becomes markup."""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from .concepts import Example

if TYPE_CHECKING:
    from .shift import ShiftedConcept

_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Concept shift: {{ before }} to {{ after }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; color: #1f2328; background: #fff; }
article { border: 1px solid #d0d7de; border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 0; } dl { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .5rem 0; }
dt { color: #59636e; font-size: .85rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem; } figure { margin: 0; width: 7rem; } img { width: 7rem; height: 7rem; object-fit: cover; border-radius: .25rem; }
figcaption { font-size: .8rem; color: #59636e; overflow-wrap: anywhere; }
ins { color: #116329; text-decoration: none; } ins::before { content: "+ "; } del { color: #a40e26; text-decoration: none; } del::before { content: "- "; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } article { border-color: #3d444d; } dt, figcaption { color: #9198a1; } ins { color: #57ab5a; } del { color: #f47067; } }
</style>
<h1>Concept shift: {{ before }} to {{ after }}</h1>
<p>Layer {{ layer }}, {{ where }}. {{ compared }} states were compared; {{ left_out[0] }} only before and {{ left_out[1] }} only after were left out.
{% if correlation is not none %}Recovery correlates with consistency: {{ "%.2f"|format(correlation) }}.{% endif %}
The concepts that moved most come first. A shift recovers a concept as far as it leads from the old one to the one that was learned anew after fine-tuning.</p>
{% for card in cards %}
<article>
<h2>Concept {{ card.one.concept }}: {{ card.one.words[:5]|join(", ") or "no words" }}</h2>
<dl>
{% for name, value in card.figures %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}</dl>
<p>{% for word in card.one.gained %}<ins>{{ word }}</ins> {% endfor %}{% for word in card.one.lost %}<del>{{ word }}</del> {% endfor %}</p>
<div class="sides">
{% for title, examples in card.sides %}<section><strong>{{ title }}</strong><div class="pictures">
{% for each in examples %}<figure>{% if each.src %}<img src="{{ each.src }}" alt="{{ each.answer }}" loading="lazy">{% endif %}<figcaption>{{ each.answer }}</figcaption></figure>
{% endfor %}</div></section>
{% endfor %}</div>
</article>
{% endfor %}
</html>
""")


def page(about: Mapping[str, Any], moved: "Sequence[ShiftedConcept]") -> str:
    """The page of a shift: `about` is its `to_dict`, `moved` its concepts in the order shown."""
    cards = [
        {
            "one": one,
            "figures": [
                ("samples", one.size),
                ("shift / norm", _figure(one.relative)),
                ("consistency", _figure(one.consistency)),
                ("cosine with its match", _figure(one.cosine)),
                ("after the shift", _figure(one.shifted_cosine)),
                ("recovery", _figure(one.recovery)),
            ],
            "sides": [("before", _shown(one.examples_before)), ("after", _shown(one.examples_after))],
        }
        for one in moved
    ]
    return _PAGE.render(**about, cards=cards)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _shown(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {"answer": each.answer, "src": f"data:image/webp;base64,{base64.b64encode(each.webp).decode('ascii')}" if each.webp else ""}
        for each in examples
    ]
