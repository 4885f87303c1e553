"""How far an error may exceed a noise floor that was measured on few numbers, by chance alone.

The noise floor of a tap comes from a few recordings. Where the tap has thousands of elements, their
mean square hardly varies. Where it is a single number, such as a loss, the errors of all recordings
may cancel by chance, and a right candidate exceeds their largest many times.
"""

FLOOR_FACTOR = 5.0  # times the noise floor, where there are numbers enough
CHANCE = 1e-5  # of a right tap to exceed its bound
FEW = 20.0  # beyond this factor the recordings are too few to allow it
# Row: elements of the tap, from 1. Column: recordings that the noise floor is from, from 1.
# Each number is the square root of the quantile 1 - CHANCE of the F distribution with (elements,
# elements x recordings) degrees of freedom; from 11 elements on, all are below FLOOR_FACTOR.
# A table, because SciPy is not needed for anything else here; a test computes it again.
RATIOS = (
    (63700.0, 316.0, 60.4, 27.8, 17.9, 13.6, 11.2, 9.78),
    (316.0, 25.1, 11.7, 8.19, 6.71, 5.91, 5.41, 5.07),
    (55.4, 10.9, 6.68, 5.32, 4.67, 4.3, 4.05, 3.88),
    (23.4, 7.13, 4.98, 4.21, 3.82, 3.58, 3.43, 3.32),
    (14.0, 5.5, 4.14, 3.61, 3.34, 3.17, 3.06, 2.98),
    (9.92, 4.6, 3.63, 3.24, 3.03, 2.9, 2.81, 2.75),
    (7.77, 4.03, 3.29, 2.98, 2.81, 2.7, 2.63, 2.58),
    (6.45, 3.64, 3.04, 2.78, 2.64, 2.55, 2.49, 2.45),
    (5.58, 3.35, 2.85, 2.63, 2.51, 2.44, 2.38, 2.34),
    (4.96, 3.13, 2.7, 2.51, 2.41, 2.34, 2.29, 2.26),
)


def question_factor(elements: int, recordings: int) -> float:
    """The factor between noise floor and the largest error that chance can explain.

    Errors are taken as normal and independent. Then the ratio of their mean squares, one over
    `elements` numbers and one over `recordings` times as many, has an F distribution.
    """
    if not 1 <= elements <= len(RATIOS) or recordings < 1:
        return FLOOR_FACTOR
    row = RATIOS[elements - 1]
    return max(FLOOR_FACTOR, row[min(recordings, len(row)) - 1])


def floor_factor(elements: int, recordings: int) -> float:
    """The factor between noise floor and bound: more than FLOOR_FACTOR for very few numbers.

    If chance would allow more than FEW, the recordings are too few to widen the bound. It stays at
    FLOOR_FACTOR, and an error above it is a question.
    """
    factor = question_factor(elements, recordings)
    return factor if factor <= FEW else FLOOR_FACTOR
