module github.com/clipper-serving/clipper/gen/go

go 1.26
