-- What was rejected or left out, where and why.
select stage, 'rejected' as kind, reason, count(*) as number, min(detail) as example from rejects group by stage, reason
union all
select stage, 'left out', reason, number, null from left_out
order by number desc, stage, reason
