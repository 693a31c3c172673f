//! Access reviews: what a report of a period shows is what was true then; and who signed it off.
