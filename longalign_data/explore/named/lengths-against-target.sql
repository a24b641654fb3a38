-- How many documents of each length were asked for, and how many were had and there.
select lang as language, bucket, target, achieved, available, greatest(0, coalesce(target, 0) - achieved) as short
from targets where bucket <> '' order by language, try_cast(split_part(bucket, '-', 1) as bigint), bucket
