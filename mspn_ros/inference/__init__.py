"""Images in, pose estimates out. Imports neither training nor datasets."""
