"""What is installed in a file system, read from the records that package managers and builds leave there.

    fields      records of `Name: value` lines             dpkg, apk, rpm     databases of distributions
    licences    what packages call their licences           pypi, npm, golang  packages of languages
    model       Package, Distribution, Inventory            purl, spdx         how it is told: package URLs, SPDX 2.3

Every reader is a pure function from a file's content to values, and every content is hostile: what cannot be read
gives nothing or `Unreadable`, never another error. Which files there are is the reader of the file system's business.
"""
