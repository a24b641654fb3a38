-- How many things went into each stage and came out of it.
select stage, num_in, num_out, num_rejected, num_left_out, num_tokens, round(seconds, 1) as seconds from stages
