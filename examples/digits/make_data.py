"""Writes digits_data.h from the digits.csv.gz that the scikit-learn package carries.

    python make_data.py path/to/digits.csv.gz > digits_data.h

Each row of the input is 64 pixel values 0..16 and a label; it becomes one line: a letter a..q a pixel, then the label.
"""
import csv
import gzip
import sys

HEAD = """\
/* Optical Recognition of Handwritten Digits, the 1,797 images of the test part. E. Alpaydin, C. Kaynak, UCI Machine
 * Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0
 * (https://creativecommons.org/licenses/by/4.0/). Changed only in notation, by make_data.py: one line an image of 8x8
 * pixels, row by row, a letter a pixel (a for 0 to q for 16), then the label. */
static const char digits_data[1797][66] = {"""


def main():
    with gzip.open(sys.argv[1], "rt") as file:
        rows = [[int(float(cell)) for cell in row] for row in csv.reader(file)]
    assert len(rows) == 1797 and all(len(row) == 65 for row in rows)
    assert all(0 <= value <= 16 for row in rows for value in row)
    print(HEAD)
    for row in rows:
        print('    "' + "".join(chr(ord("a") + value) for value in row[:64]) + str(row[64]) + '",')
    print("};")


main()
