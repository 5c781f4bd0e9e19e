import pytest
from hostile import FRAGMENTS, few
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.pretrained.chat_template import DATE, ChatTemplate
from jaxalign.pretrained.tokenizer import from_hf, tiny_tokenizer

HI = [{"role": "user", "content": "Hi"}]
TALK = [{"role": "system", "content": "Be <brief>."}, *HI, {"role": "assistant", "content": "Hé"}, *HI]


def tokenizer_with(template):
    hf = tiny_tokenizer().hf.to_transformers()
    hf.chat_template = template
    return from_hf(hf)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}[{{ m.content }}]{% endfor %}",
        "{%- set n = namespace(s='') %}\n{% for m in messages %}\n  {% set n.s = m.role %}\n{% endfor %}{{ n.s }}",
        "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ {'b': '<', 'a': 'é'} | tojson(indent=1) }}",
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}|{% endfor %}",
        "{{ bos_token }}{{ eos_token }}{% if tools %}T{% endif %}{{ messages[0]['content'].strip().upper() }}{{ x }}",
        "{% if tools is not none %}T{% endif %}{{ messages[1:] | length }}{{ '-' * 3 + 'a' }}{{ 2 ** 3 }}",
        "{% for m in messages %}{{ loop.index ~ loop.length ~ m.role ~ loop.last }}{% else %}{% endfor %}{{ 1 ~ x }}",
        "{% macro say(m) %}<{{ m.content }}>{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}"
        "{{ messages[::-1] | map(attribute='role') | unique | list }}{{ messages | join('|', attribute='role') }}",
        "{% for k, v in messages[0].items() %}{{ '%s: %5s' % (k, v) ~ '{}={:>4}'.format(k, 7) }}{% endfor %}"
        "{% for k, v in messages[0] | dictsort %}{{ k | title | indent(2, true) }}{{ v.split()[-1] }}{% endfor %}",
        "{%- for m in messages recursive %}{{ m.role }}{% if loop.depth < 3 %}{{ loop(messages[1:]) }}{% endif %}"
        "{{ loop.changed(m.role) }}{{ loop.cycle(1, 2) }}{% endfor %}",
        "{% set t %}{% for m in messages %}{{ m.content | replace('i', '!') | trim }}\n{% endfor %}{% endset %}{{ t }}"
        "{% set d = dict(a=[1.5, none], b={'c': true}) %}{{ d }}{{ d == {'a': 1} }}{{ 'b' in d }}{{ -7 // 2 % 4 }}",
        "{% macro m(x) %}({{ caller() }}{{ x }}){% endmacro %}{% call m(7 / 2) %}{{ messages | length }}{% endcall %}"
        "{{ ', '.join(messages | map(attribute='role')) }}{{ '<a>' | safe + '<b>' }}{{ 2.567 | round(1) }}",
    ],
)
def test_a_template_writes_what_it_writes_in_transformers(template):
    hf = tiny_tokenizer().hf.to_transformers()
    for answering in (True, False):
        theirs = hf.apply_chat_template(TALK, chat_template=template, tokenize=False, add_generation_prompt=answering)
        assert ChatTemplate(template, hf.special_tokens_map).render(TALK, answering=answering) == theirs


DEEP = "{% set n = namespace(x=()) %}{% for i in range(2000) %}{% set n.x = (n.x,) %}{% endfor %}"
"""Python hashes what is in a list without counting the levels, and more of them would end the process."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no, not\nthis') }}", "no, not this"),
        ("{{ messages[0]['content'] / 2 }}", "TypeError"),
        ("{{ messages[9]['content'] }}", "has no element 9"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% for m in messages %}", "end of template"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "__class__"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'a' * 10000000000 }}", "builds more than"),
        ("{{ [1] * 10000000000 }}", "builds more than"),
        ("{{ 9 ** 999999999 }}", "builds more than"),
        (
            "{% for n in range(99999) %}{% for m in range(99999) %}{{ 'a' * 999 }}{% endfor %}{% endfor %}",
            "builds more than",
        ),
        ("{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}", "builds more"),
        ("{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}", "builds more"),
        ("{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}", "loops take more than"),
        ("{{ 'a'.center(1000000000) }}", "builds more than"),
        ("{{ 'a' | center(1000000000) }}", "builds more than"),
        ("{{ 'a' | indent(1000000000, true) }}", "builds more than"),
        ("{{ '%999999999d' % 1 }}", "builds more than"),
        ("{{ '%*d' % (999999999, 1) }}", "builds more than"),
        ("{{ '%999999999d' | format(1) }}", "builds more than"),
        ("{{ '{:>999999999}'.format(1) }}", "builds more than"),
        ("{{ ('a' * 9999).replace('a', 'a' * 9999) }}", "builds more than"),
        ("{{ ('a' * 9999).join('a' * 9999) }}", "builds more than"),
        ("{{ range(99999) | join('x' * 100000) }}", "builds more than"),
        ("{{ (['x' * 9999999] * 1000) | join('') }}", "builds more than"),
        ("{{ ('x' * 100000).join(range(999) | map('string') | list | map('string')) }}", "builds more than"),
        ("{{ ('%s' * 1000) % (('x' * 9999999,) * 1000) }}", "builds more than"),
        ("{{ ['%999999999d'] | format(1) }}", "builds more than"),
        ("{{ ('{:9999999}' * 1000).format(1) }}", "builds more than"),
        ("{{ '{:{w}}'.format(1, w='9000000000') }}", "a width that is not in the format"),
        ("{{ '{0:{1}}'.format(1, '9000000000') }}", "a width that is not in the format"),
        ("{{ ('a\n' * 999999) | indent('x' * 1000000) }}", "builds more than"),
        ("{{ 'a ' | wordwrap(1, wrapstring='x' * 100000) }}", "No filter named 'wordwrap'"),
        ("{{ messages | tojson(indent=2000000000) }}", "builds more than"),
        ("{{ (['x' * 9999999] * 1000) | string }}", "builds more than"),
        (
            "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
            "bits of a number",
        ),
        ("{% set a = 3 ** 8000000 %}{% set b = 7 ** 2500000 %}{{ a // b > 1 }}", "bits of a number"),
        ("{{ 5 | round(-100000000) }}", "bits of a number"),
        ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", "take more than"),
        (
            "{% for i in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
            "loops take more than",
        ),
        ("{% set a %}xxxxxxxx{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40, "builds more than"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}", "builds more than"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x == x[:] }}", "builds more than"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x | tojson }}", "builds more than"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x | tojson(indent=0) }}", "builds more than"),
        ("{{ messages | tojson(separators=['x' * 9999999, ':']) }}", "builds more than"),
        ("{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{{ {x: 1} }}", "builds more than"),
        (f"{DEEP}{{{{ {{n.x: 1}} }}}}", "levels of lists"),
        (f"{DEEP}{{{{ {{}}.get(n.x) }}}}", "levels of lists"),
        (f"{DEEP}{{{{ {{}}[n.x] }}}}", "levels of lists"),
        (f"{DEEP}{{{{ [n.x] | unique | list }}}}", "levels of lists"),
        (f"{DEEP}{{{{ n.x in {{}} }}}}", "levels of lists"),
        ("{{ ('a' * 8000000).rfind('b' + 'a' * 4000000) }}", "builds more than"),
        ("{{ ('a' * 8000000).strip('b' * 8000000 + 'a') }}", "builds more than"),
        ("{{ ('f' * 1000000) | int(base=16) is divisibleby 7 }}", "bits of a number"),
        ("{{ lipsum(n=100000000) }}", "'lipsum' is undefined"),
        ("{% for i in range(99999) %}{% set y = [0] * 1000000 %}{% endfor %}", "builds more than"),
        ("{% set a = 'a' * 9999999 %}{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}", "builds more than"),
        ("{{ range(0, 99999 * 2305843009213693951, 2305843009213693951) | unique | list }}", "builds more than"),
        ("{{ '<!---->' | striptags }}", "No filter named 'striptags'"),
        ("{{ [1, 2, 3] | random }}", "No filter named 'random'"),
        ("{{ 'a'.encode() }}", "calls encode, which is not among"),
        ("{% autoescape true %}{% endautoescape %}", "no autoescape"),
        ("{# " + "a" * 300000 + " #}", "has more than"),
    ],
)
def test_whatever_a_template_does_wrong_is_one_line(template, said):
    with pytest.raises(UserError, match="the model's chat template refuses these messages: ") as error:
        ChatTemplate(template, {}).render(HI, answering=True)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 340


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{% for i in range(9000) %}{% endfor %}", "take more than"),
        ("{% set a = 'a' * 9000000 %}", "builds more than"),
        ("{{ 'a' * 90000 }}", "writes 90,"),
    ],
)
def test_what_a_template_may_do_grows_with_what_it_is_given(step, said):
    # A command renders thousands of short texts: a second for each of them would look like an endless loop.
    template = ChatTemplate(step + "{% for m in messages %}{{ m.content }}{% endfor %}", {})
    with pytest.raises(UserError, match=said):
        template.render(HI, answering=True)
    long = [{"role": "user", "content": "Hello " * 1000}]
    assert template.render(long, answering=True).endswith(long[0]["content"])


def test_a_template_that_looks_at_all_messages_for_each_of_them_is_allowed():
    shown = "{% for n in messages %}{% if n == m %}{{ m.content }}{% endif %}{% endfor %}"
    template = ChatTemplate("{% for m in messages %}" + shown + "{% endfor %}{# " + "a" * 10000 + " #}", {})
    talk = [{"role": "user", "content": f"<{number}>"} for number in range(100)]
    assert template.render(talk, answering=True) == "".join(one["content"] for one in talk)


@pytest.mark.parametrize("half", [r"{{ '\ud83d' }}", "{{ '%c' % 55357 }}", r"{{ '\ud83d' }}{{ '\ude00' }}"])
def test_a_template_that_writes_half_of_a_character_is_refused_when_it_is_used(half):
    tokenizer = tokenizer_with("{% for m in messages %}{{ m.content }}<|im_end|>" + half + "{% endfor %}")
    assert len(tokenizer.encode("plain")) == 5  # a plain text needs no template
    with pytest.raises(UserError, match="the model's chat template writes half of a surrogate pair"):
        tokenizer.chat(HI)


def test_a_template_that_asks_for_the_date_gets_the_one_it_is_given():
    template = "{{ strftime_now('%d %b %Y') }}"
    assert ChatTemplate(template, {}).render(HI, answering=True) == "26 Jul 2024" and DATE == "2024-07-26"
    other = ChatTemplate(template, {}, "2026-11-25")
    assert other.render(HI, answering=True) == "25 Nov 2026" and other.asks_date
    assert not ChatTemplate("{{ 1 }}", {}).asks_date


PASSES_OVER = "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['content'] }}]{% endif %}{% endfor %}"


def test_a_system_message_that_a_template_passes_over_opens_the_first_message_of_the_user():
    tokenizer = tokenizer_with(PASSES_OVER)
    assert tokenizer.chat(HI, "Be brief.") == "[Be brief.\n\nHi]"
    assert tokenizer.chat(TALK) == "[Be <brief>.\n\nHi][Hé][Hi]"
    # A message that happens to say the same does not show that the system's was used.
    assert tokenizer.chat(HI, "Hi") == "[Hi\n\nHi]"
    with pytest.raises(UserError, match="does not show a system message"):
        tokenizer.chat([{"role": "assistant", "content": "Yes"}], "Be brief.")


def test_a_message_that_a_template_does_not_show_is_refused():
    last = tokenizer_with("{{ messages[-1]['content'] }}")
    with pytest.raises(UserError, match="does not show message 1, of the user"):
        last.chat([{"role": "user", "content": "First"}, *HI])
    later = tokenizer_with(PASSES_OVER)
    with pytest.raises(UserError, match="does not show message 2, of the system"):
        later.chat([*HI, {"role": "system", "content": "Be brief."}, *HI])


@pytest.mark.parametrize(
    ("template", "lead", "close", "eos"),
    [
        ("{% for m in messages %}{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}", "", "<|im_end|>", False),
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}", "", "", True),
        (
            "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %} {{ m.content }} <|endoftext|>"
            "{% endif %}{% endfor %}",
            " ",
            " <|endoftext|>",
            False,
        ),
    ],
)
def test_an_answer_ends_with_what_the_template_writes_behind_it(template, lead, close, eos):
    tokenizer = tokenizer_with(template)
    assert tokenizer.turn == (lead, close, eos)
    assert tokenizer.end_ids == ((2, 0) if "endoftext" in close else (2,))
    goes_on = tokenizer.continued([*HI, {"role": "assistant", "content": "It is "}])
    assert goes_on.endswith(f"{lead}It is " if lead else "It is ")


def test_a_template_that_shows_no_answer_is_refused_for_training():
    tokenizer = tokenizer_with("{{ messages[0]['content'] }}")
    with pytest.raises(UserError, match="does not show an assistant's answer"):
        _ = tokenizer.turn


LEAVES = ("messages", "m.content", "x", "7", "-1.5", "'a'", r"'\ud83d'", "'%5c'", "[1, 'b']", "{'c': none}", "loop")
BEFORE = ("range", "namespace", "dict", "raise_exception", "f", "not", "-")
BETWEEN = ("+", "~", "*", "**", "%", "//", "<", "in", "and", "is sameas")
BEHIND = (
    *("[0]", "[1:]", "['role']", ".content", ".format(1)", ".items()", "(1)", "| tojson", "| join", "| list", "| int"),
    *("| indent", "| sum", "| map('upper')", "| format(1)", "| dictsort", "| round(3)"),
)
EXPRESSIONS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(BEFORE), inner),
        st.tuples(inner, st.sampled_from(BETWEEN), inner),
        st.tuples(inner, st.sampled_from(BEHIND)),
    ).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=6,
)
STATEMENTS = (
    *("{{ V }}", "{% for m in V %}{{ V }}{% endfor %}", "{% if V %}{% else %}{{ V }}{% endif %}", "{% set x = V %}"),
    *("{% macro f(x) %}{{ V }}{% endmacro %}", "{% for m in messages %}", "{% endfor %}"),
    *("{% set x %}{{ V }}{% endset %}", r"{{ '\ud83d' }}"),
)
FILLED = st.tuples(st.sampled_from(STATEMENTS), EXPRESSIONS, EXPRESSIONS).map(
    lambda parts: parts[0].replace("V", parts[1], 1).replace("V", parts[2])
)


@few
@given(st.lists(FILLED | st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=5).map("".join))
def test_any_text_is_a_template_or_one_line(template):
    try:
        written = ChatTemplate(template, {"bos_token": "<s>"}).render(HI, answering=True)
    except UserError as error:
        line = str(error)
        assert line.startswith("the model's chat template ") and line.isprintable()
    else:
        assert written.encode().decode() == written
