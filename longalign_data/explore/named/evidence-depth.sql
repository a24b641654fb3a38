-- How deep in its document the evidence of an answer stands: 0 is the first tenth, 9 the last.
select least(9, floor(10 * depth))::int as tenth, count(*) as places, count(distinct sample_id) as samples,
       bar(count(*), 0, max(count(*)) over (), 40) as histogram
from evidence group by tenth order by tenth
