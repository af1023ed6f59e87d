"""What several experiments share; the scripts are beside this folder."""
