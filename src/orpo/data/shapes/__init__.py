"""The readers behind the table in `orpo.data.formats`: a row by role goes in, a draft of a pair comes out."""
