select range::date as date_day from range(date '2020-01-01', current_date + 366, interval 1 day)
