"""Mathematics and numbers in the report."""

import math

import pytest

from verification.report.typeset import column, duration, label, mathml, number, phrase, prose


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{a}{b}",
        r"\|J\| \le q < 1",
        r"\mathbb{E}[\phi(u)]",
        r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
        r"\left( x \right)",
        r"\operatorname{tr}(C)",
        r"\mathrm{tr}\,C",
        r"z^\star",
        r"\text{for all } x",
    ],
)
def test_commands_that_claims_use(latex):
    element = mathml(latex)
    assert element.startswith("<math")
    assert "\\" not in element
    assert "http" not in element


def test_spaces_that_the_converter_leaves_out():
    assert 'log</mi><mspace width="0.167em"/><mi>Z' in mathml(r"\log Z")
    assert mathml(r"\|x\|").count('lspace="0em"') == mathml("|x|").count('lspace="0em"') == 2
    assert "mspace" not in mathml(r"\log(Z)")
    assert "<mi>&#x0221E;</mi>" in mathml(r"n \to \infty")


def test_what_cannot_be_typeset():
    with pytest.raises(ValueError, match="unknown command"):
        mathml(r"\notacommand{x}")
    with pytest.raises(ValueError, match="cannot typeset"):
        mathml(r"\frac{a")
    assert "<code>\\notacommand</code>" in prose(r"See $\notacommand$.")
    with pytest.raises(ValueError, match="unknown command"):
        prose(r"See $\notacommand$.", strict=True)
    with pytest.raises(ValueError, match="dollar sign"):
        prose("costs $5", strict=True)


def test_prose_is_escaped():
    assert phrase("a < b & `c<d>`") == "a &lt; b &amp; <code>c&lt;d&gt;</code>"
    assert "<script>" not in prose("<script>alert(1)</script> $x < 1$")
    assert phrase("10^-6 draws of N(0, I_100), |W|_F^n") == (
        "10<sup>−6</sup> draws of N(0, I<sub>100</sub>), |W|<sub>F</sub><sup>n</sup>")
    assert phrase("`a_1^2` and sigma_a^2") == "<code>a_1^2</code> and σ<sub>a</sub><sup>2</sup>"
    assert phrase("D_{m-1} and J^{K}") == "D<sub>m-1</sub> and J<sup>K</sup>"
    assert phrase("J^(K+1) <= 1") == "J<sup>K+1</sup> ≤ 1"
    assert phrase("the sigma_algebra, sigma and snake_case") == "the sigma_algebra, sigma and snake_case"
    assert prose("one\n\ntwo") == "<p>one</p><p>two</p>"
    assert 'display="block"' in prose("then $$x = 1$$")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (17, "17"),
        (1234, "1234"),
        (12345, "12\u202f345"),
        (-1234567, "−1\u202f234\u202f567"),
        (0.5, "0.5"),
        (1 / 3, "0.33333"),
        (12345.678, "12\u202f346"),
        (-0.25, "−0.25"),
        (100.0, "100"),
        (6.1e-16, '<span class="nobreak">6.1\u202f×\u202f10<sup>−16</sup></span>'),
        (-2e9, '<span class="nobreak">−2\u202f×\u202f10<sup>9</sup></span>'),
        (0.001, "0.001"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        ("Infinity", "∞"),
        ("-Infinity", "−∞"),
        (True, "yes"),
        ([1, 0.5], "1, 0.5"),
        ("a < b", "a &lt; b"),
        (99999.96, "100\u202f000"),
        ({"a_b": 1}, "a b 1"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_labels_and_durations():
    assert label("max_error") == "max error"
    assert label("error of A_0") == "error of A<sub>0</sub>"
    assert "<math" in label("$x_1$")
    assert [duration(s) for s in (0.01, 1.24, 59.9, 61, 3725)] == [
        "< 0.1 s",
        "1.2 s",
        "59.9 s",
        "1 min 01 s",
        "1 h 02 min",
    ]


def test_columns_stand_at_their_points():
    cells = [str(cell) for cell in column(["-1.5 ± 0.2*", 12.25, "7*", None, 3])]
    assert cells[0] == '−1<span class="tail" style="width:9ch">.5 ± 0.2*</span>'
    assert cells[1] == '12<span class="tail" style="width:9ch">.25</span>'
    assert cells[2] == '7<span class="tail" style="width:9ch">*</span>'
    assert cells[3] == ""
    assert cells[4] == '3<span class="tail" style="width:9ch"></span>'
    assert [str(cell) for cell in column([1, 20000])] == ["1", "20\u202f000"]
    assert "10<sup>−9</sup>" in str(column([1e-9, 0.5])[0]), "powers of ten are left as they are"
    assert str(column(["<b>1"])[0]) == "&lt;b&gt;1"


def test_bold():
    assert str(prose("**Who is faster.** 2 ** 3 stays")) == "<p><b>Who is faster.</b> 2 ** 3 stays</p>"
