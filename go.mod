module github.com/clipper-serving/clipper

go 1.26

require github.com/clipper-serving/clipper/gen/go v0.0.0

replace github.com/clipper-serving/clipper/gen/go => ./gen/go
