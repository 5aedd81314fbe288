-- For who only looks: nothing falls due by that, and no lease ends.
tick = function() end
