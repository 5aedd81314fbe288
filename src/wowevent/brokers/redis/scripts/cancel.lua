-- Drop a delayed event. ARGV[4]: its id, which stays known, so that a repeated publish does not bring it back.
call('HDEL', P .. ':later:body', ARGV[4])
return call('ZREM', P .. ':later', ARGV[4])
