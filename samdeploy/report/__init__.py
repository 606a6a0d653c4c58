"""What an evaluation found, for people and for other programs: one HTML file, JSON, JUnit XML.

`write.write_report` writes a folder of all three, `junit.junit_xml` makes the XML alone, `schema` holds the shapes of
`eval.json` and `compare.json`.  The HTML needs Jinja: the extra `report`.  Nothing is measured here but the maps of a
few images; what was not measured is named, with the command that measures it.
"""
