"""Read folders and tables of labelled photos into a manifest.

sources   from_folder <- folders; from_csv, from_dataframe <- tables <- lookup
scanning  reads each listed file once <- image_cache
merging   several manifests into one
"""

__all__: list[str] = []
