from medssl.patients import first_spellings, patient_key


def test_case_and_blanks_do_not_make_another_patient() -> None:
    assert patient_key(" p 1\t") == patient_key("P1")


def test_a_patient_is_spelled_as_it_was_first() -> None:
    assert first_spellings(["P 1", "p2", "p1", "P2", "p3"]) == ["P 1", "p2", "P 1", "p2", "p3"]
