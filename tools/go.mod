module github.com/clipper-serving/clipper/tools

go 1.26
