"""Installed packages of a file system, read from the records of package managers and builds.

    fields      records of `Name: value` lines             dpkg, apk, rpm     databases of distributions
    licences    license expressions                         pypi, npm, golang  packages of languages
    model       Package, Distribution, Inventory            purl, spdx         output: package URLs, SPDX 2.3

Every reader is a pure function from a file's content to values, and every content is hostile: unreadable data gives
nothing or `Unreadable`, never another error. Callers find the files.
"""
