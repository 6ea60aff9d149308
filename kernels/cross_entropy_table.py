PER_LANE=8
RowConfig=None
row_config=None
