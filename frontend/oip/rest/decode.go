// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// What one request may have. Each bounds memory that a short text could ask for much of.
const (
	maxTensors    = 256
	maxParameters = 64
	maxRank       = 32
)

const datatypes = "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"

// request is an inference request as its body says.
type request struct {
	inference.ModelInferRequest
	// binaryOutput is whether outputs are binary that say nothing else themselves.
	binaryOutput bool
	// binary has the outputs that say themselves.
	binary map[string]bool
}

// inBinary reports whether an output is wanted as binary data.
func (q *request) inBinary(output string) bool {
	if wanted, ok := q.binary[output]; ok {
		return wanted
	}
	return q.binaryOutput
}

// decoder reads one inference request.
type decoder struct {
	naturaljson.Reader
	request *request
	tail    []byte // What has not been given to an input yet.
	binary  bool   // Whether there is a tail, even an empty one.

	// Where the decoder is, for errors: "inputs" 3 "shape".
	list      string
	item      int
	member    string
	parameter string // Of the parameters that the member is.
}

// decode reads a body of which the first jsonLength bytes are JSON and the rest are binary tensors;
// a jsonLength below 0 means that all is JSON. Contents of the request may refer to the body.
func decode(body []byte, jsonLength int) (*request, error) {
	d := decoder{request: &request{}, item: -1}
	if jsonLength >= 0 {
		d.binary, d.tail, body = true, body[jsonLength:], body[:jsonLength]
	}
	d.Reader = naturaljson.NewReader(body)
	err := d.body()
	if err == nil {
		d.member = ""
		err = d.End()
	}
	if err == nil && len(d.tail) > 0 {
		err = invalid("", "%d bytes of binary data follow those of the last input: the binary_data_size of all inputs must add up to what follows the JSON", len(d.tail))
	}
	if err != nil {
		return nil, d.locate(err)
	}
	return d.request, nil
}

func (d *decoder) body() error {
	if d.Next() != '{' {
		return d.Mismatch("an object with the member \"inputs\"")
	}
	var id, parameters, inputs, outputs bool
	err := d.Object(func(key []byte) (err error) {
		switch string(key) {
		case "id":
			d.member = "id"
			if err = d.once(&id); err == nil {
				d.request.Id, err = d.Text()
			}
		case "parameters":
			d.member = "parameters"
			if err = d.once(&parameters); err == nil {
				d.request.Parameters, err = d.parameters(d.requestParameter)
			}
		case "inputs":
			d.member = "inputs"
			if err = d.once(&inputs); err == nil {
				err = d.items("inputs", d.input)
			}
		case "outputs":
			d.member = "outputs"
			if err = d.once(&outputs); err == nil {
				err = d.items("outputs", d.output)
			}
		default:
			// Some clients repeat the model's name here; what else there may be is not for us.
			d.member = ""
			err = d.Skip()
		}
		return err
	})
	if err == nil && !inputs {
		err = missing("inputs", "inputs: is missing, expected a list of the input tensors")
	}
	return err
}

// once requires that a member has not been there before.
func (d *decoder) once(seen *bool) error {
	if *seen {
		return d.Errorf(d.Offset(), malformed, "is there twice")
	}
	*seen = true
	return nil
}

// items reads a list of tensors.
func (d *decoder) items(list string, item func() error) error {
	return d.List(func(i int) error {
		if i == maxTensors {
			return d.Errorf(d.Offset(), tooLarge, "has more than %d items", maxTensors)
		}
		d.list, d.item, d.member = list, i, ""
		if err := item(); err != nil {
			return err
		}
		d.list, d.item, d.member = "", -1, list
		return nil
	})
}

// absent is what size is when an input has no binary data.
const absent = -1

func (d *decoder) input() error {
	in := &inference.ModelInferRequest_InferInputTensor{}
	size := int64(absent)
	var name, datatype, shape, data, parameters bool
	var dataType clipperv1.DataType
	var contents []byte
	later := -1 // Where the data is, when it comes before what says how to read it.
	err := d.Object(func(key []byte) (err error) {
		switch string(key) {
		case "name":
			d.member = "name"
			if err = d.once(&name); err == nil {
				in.Name, err = d.Text()
			}
		case "datatype":
			d.member = "datatype"
			if err = d.once(&datatype); err == nil {
				in.Datatype, dataType, err = d.datatype()
			}
		case "shape":
			d.member = "shape"
			if err = d.once(&shape); err == nil {
				in.Shape, err = d.shape()
			}
		case "parameters":
			d.member = "parameters"
			if err = d.once(&parameters); err == nil {
				in.Parameters, err = d.parameters(func(key []byte) (bool, error) {
					if string(key) != "binary_data_size" {
						return false, nil
					}
					size, err = d.size()
					return true, err
				})
			}
		case "data":
			d.member = "data"
			err = d.once(&data)
			switch {
			case err != nil:
			case datatype && shape:
				contents, err = d.Elements(nil, dataType, in.Shape)
			default:
				later = d.Offset()
				err = d.Skip()
			}
		default:
			d.member = ""
			err = d.Skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	d.member = ""
	switch {
	case !name:
		return d.lacks("name")
	case !datatype:
		return d.lacks("datatype")
	case !shape:
		return d.lacks("shape")
	case data && size != absent:
		return d.wrong("has data and a binary_data_size, expected one of them")
	case size != absent && !d.binary:
		return d.wrong("has a binary_data_size, but the request has no header Inference-Header-Content-Length to say where the JSON ends")
	case size > int64(len(d.tail)):
		return d.wrong("binary_data_size is %d, but only %d bytes are left of the body", size, len(d.tail))
	case size != absent:
		contents, d.tail = d.tail[:size:size], d.tail[size:]
	case !data && in.Parameters["shared_memory_region"] != nil:
		return d.wrong("shared memory is not served; send data, or binary data with binary_data_size")
	case !data:
		return d.lacks("data, neither as JSON nor as binary data with a binary_data_size")
	case later >= 0:
		end := d.Offset()
		d.Seek(later)
		d.member = "data"
		if contents, err = d.Elements(nil, dataType, in.Shape); err != nil {
			return err
		}
		d.Seek(end)
	}
	d.request.Inputs = append(d.request.Inputs, in)
	d.request.RawInputContents = append(d.request.RawInputContents, contents)
	return nil
}

// lacks is the error that the tensor that has been read lacks a member.
func (d *decoder) lacks(what string) error {
	at := d.where()
	return missing(at, "%s: has no %s", at, what)
}

// wrong is the error that something about the tensor that has been read is wrong.
func (d *decoder) wrong(format string, args ...any) error {
	at := d.where()
	return invalid(at, "%s: %s", at, fmt.Sprintf(format, args...))
}

func (d *decoder) output() error {
	out := &inference.ModelInferRequest_InferRequestedOutputTensor{}
	var name, parameters, chosen, binary bool
	err := d.Object(func(key []byte) (err error) {
		switch string(key) {
		case "name":
			d.member = "name"
			if err = d.once(&name); err == nil {
				out.Name, err = d.Text()
			}
		case "parameters":
			d.member = "parameters"
			if err = d.once(&parameters); err == nil {
				out.Parameters, err = d.parameters(func(key []byte) (bool, error) {
					if string(key) != "binary_data" {
						return false, nil
					}
					chosen = true
					binary, err = d.boolean()
					return true, err
				})
			}
		default:
			d.member = ""
			err = d.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !name:
		d.member = ""
		return d.lacks("name")
	case chosen:
		if d.request.binary == nil {
			d.request.binary = map[string]bool{}
		}
		d.request.binary[out.Name] = binary
	}
	d.request.Outputs = append(d.request.Outputs, out)
	return nil
}

// requestParameter takes what is between the client and this package from the request's parameters.
func (d *decoder) requestParameter(key []byte) (taken bool, err error) {
	if string(key) != "binary_data_output" {
		return false, nil
	}
	d.request.binaryOutput, err = d.boolean()
	return true, err
}

// parameters reads parameters but for those that take takes.
func (d *decoder) parameters(take func(key []byte) (bool, error)) (map[string]*inference.InferParameter, error) {
	var read map[string]*inference.InferParameter
	count := 0
	if d.Word("null") {
		return nil, nil
	}
	err := d.Object(func(key []byte) error {
		d.parameter = ""
		if count++; count > maxParameters {
			return d.Errorf(d.Offset(), tooLarge, "has more than %d members", maxParameters)
		}
		if taken, err := take(key); taken || err != nil {
			if err != nil {
				d.parameter = string(key)
			}
			return err
		}
		d.parameter = string(key)
		if _, repeated := read[d.parameter]; repeated {
			return d.Errorf(d.Offset(), malformed, "is there twice")
		}
		p, err := d.value()
		if err == nil && p != nil {
			if read == nil {
				read = map[string]*inference.InferParameter{}
			}
			read[d.parameter] = p
		}
		return err
	})
	if err == nil {
		d.parameter = ""
	}
	return read, err
}

// value reads the value of a parameter, which is nil for null.
func (d *decoder) value() (*inference.InferParameter, error) {
	switch c := d.Next(); {
	case d.Word("null"):
		return nil, nil
	case c == 't' || c == 'f':
		b, err := d.boolean()
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: b}}, err
	case c == '"':
		text, err := d.Text()
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: text}}, err
	case c == '-' || c-'0' <= 9:
		at := d.Offset()
		token, err := d.Number()
		if err != nil {
			return nil, err
		}
		if i, err := strconv.ParseInt(string(token), 10, 64); err == nil {
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: i}}, nil
		}
		if u, err := strconv.ParseUint(string(token), 10, 64); err == nil {
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Uint64Param{Uint64Param: u}}, nil
		}
		f, err := strconv.ParseFloat(string(token), 64)
		if err != nil {
			return nil, d.Errorf(at, invalidField, "is out of the range of a float64")
		}
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_DoubleParam{DoubleParam: f}}, nil
	}
	return nil, d.Mismatch("true, false, a number or a string")
}

func (d *decoder) boolean() (bool, error) {
	switch {
	case d.Word("true"):
		return true, nil
	case d.Word("false"):
		return false, nil
	}
	return false, d.Mismatch("true or false")
}

// size reads the number of bytes of an input.
func (d *decoder) size() (int64, error) {
	at := d.Offset()
	token, err := d.Number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(token), 10, 64)
	if err != nil || n < 0 {
		return 0, d.Errorf(at, invalidField, "is %s, expected a number of bytes", shorten(string(token)))
	}
	return n, nil
}

func (d *decoder) datatype() (string, clipperv1.DataType, error) {
	at := d.Offset()
	name, err := d.Text()
	if err != nil {
		return "", 0, err
	}
	t, ok := oiptensor.ParseType(name)
	switch {
	case !ok:
		return "", 0, d.Errorf(at, invalidField, "is %q, expected one of %s", shorten(name), datatypes)
	case t == clipperv1.DataType_DATA_TYPE_BYTES:
		t = clipperv1.DataType_DATA_TYPE_STRING // In JSON, bytes are text.
	}
	return name, t, nil
}

func (d *decoder) shape() ([]int64, error) {
	var few [8]int64
	shape := few[:0]
	err := d.List(func(i int) error {
		at := d.Offset()
		token, err := d.Number()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(token), 10, 64)
		switch {
		case err != nil || n < 0:
			return d.Errorf(at, inputShape, "dimension %d is %s, expected an integer that is not negative", i, shorten(string(token)))
		case i == maxRank:
			return d.Errorf(at, inputShape, "has more than %d dimensions", maxRank)
		}
		shape = append(shape, n)
		return nil
	})
	return slices.Clone(shape), err
}

// where is the place that the decoder is at: "inputs[3].shape".
func (d *decoder) where() string {
	at := d.member
	if d.item >= 0 {
		at = d.list + "[" + strconv.Itoa(d.item) + "]"
		if d.member != "" {
			at += "." + d.member
		}
	}
	if d.parameter != "" {
		at += "." + d.parameter
	}
	return at
}

// locate says where an error of the reader is, and makes it one that callers can see.
func (d *decoder) locate(err error) error {
	var e *naturaljson.Error
	if !errors.As(err, &e) {
		return err
	}
	e.Path = shorten(d.where() + e.Path)
	if e.Reason == tooLarge {
		return apierror.New(codes.ResourceExhausted, tooLarge, e.Path, "%v", e)
	}
	return apierror.Invalid(e.Reason, e.Path, "%v", e)
}

// whole returns the request of a body that is the one input of a model, by the model's metadata.
func whole(body []byte, model *inference.ModelMetadataResponse) (*request, error) {
	if len(model.GetInputs()) != 1 {
		return nil, invalid("inputs", "model %q has %d inputs: a body without JSON is for models with one", shorten(model.GetName()), len(model.GetInputs()))
	}
	spec := model.GetInputs()[0]
	in := &inference.ModelInferRequest_InferInputTensor{Name: spec.GetName(), Datatype: spec.GetDatatype()}
	t, _ := oiptensor.ParseType(spec.GetDatatype())
	size := tensor.Size(t)
	count := int64(1) // Of elements.
	if size == 0 {
		// Bytes are one element, as they are.
		body = append(binary.LittleEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body))), body...)
	} else {
		count = int64(len(body) / size)
	}
	shape, ok := fill(spec.GetShape(), count)
	if !ok || size > 0 && len(body)%size != 0 {
		return nil, apierror.Invalid(inputShape, "inputs", "the body has %d bytes, which is no tensor of %s and shape %v; send JSON that says the shape", len(body), spec.GetDatatype(), spec.GetShape())
	}
	in.Shape = shape
	q := &request{binaryOutput: true}
	q.Inputs = append(q.Inputs, in)
	q.RawInputContents = append(q.RawInputContents, body)
	return q, nil
}

// fill gives a shape with open dimensions as many elements as there are. One open dimension takes
// what the others leave. Where there are several, the first is the batch and is 1.
func fill(open []int64, elements int64) ([]int64, bool) {
	shape := slices.Clone(open)
	last, count := -1, 0
	for i, n := range shape {
		if n < 0 {
			last = i
			count++
		}
	}
	if count == 2 && shape[0] < 0 {
		shape[0] = 1
		count--
	}
	if count > 1 {
		return nil, false
	}
	rest := int64(1)
	for i, n := range shape {
		if i == last {
			continue
		}
		if n > 0 && rest > math.MaxInt64/n {
			return nil, false
		}
		rest *= n
	}
	if last >= 0 {
		if rest == 0 || elements%rest != 0 {
			return nil, false
		}
		shape[last] = elements / rest
		return shape, true
	}
	return shape, rest == elements
}

func shorten(s string) string {
	if len(s) > 80 {
		s = s[:77]
		for len(s) > 0 && !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
		s += "..."
	}
	return s
}
