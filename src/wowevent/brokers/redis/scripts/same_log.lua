if call('HGET', S, 'epoch') ~= ARGV[1] then
  return redis.error_reply('EPOCH this is another log')
end
